"""Which CPU variant of the runtime serves on this host: the fastest that really runs (DESIGN 5).

Owns the trial: each candidate runs `llama-bench` on an installed model in a child process, from a folder that holds
exactly this variant. A processor that lacks what it claims ends the child, not the install.

Rules:
- the newest generations come first; of the first `RUNS_WANTED` that run, the fastest at generating wins, and within 3 %
  the fastest at reading the prompt;
- a crash, a refusal, no answer in time or a wrong answer means the next variant;
- this compares speed, not correctness: whether a variant's logits are right is not looked at here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from appliance.host.durable import write_file
from appliance.host.programs import Done, Programs
from bundles.progress import OnProgress, Progress
from signing.digest import sha256
from signing.errors import HostUnfitError

RUNS_WANTED = 3
TIE = 0.97
BENCH = "llama-bench"
BASE_TIMEOUT_S = 300.0
BYTES_PER_S = 20 << 20
"""The slowest reading of a model that still counts as running."""
_PROMPT, _GENERATED, _REPEATS = 16, 8, 2


@dataclass(frozen=True, slots=True)
class Choice:
    """The variant that won, and its whole tokens per second: prompt read, and text generated."""

    variant: str
    prompt_tokens_per_s: int
    generated_tokens_per_s: int


def choose_variant(
    variants: tuple[str, ...],
    folder_of: Callable[[str], Path],
    model: Path,
    threads: int,
    programs: Programs,
    on_progress: OnProgress,
) -> Choice:
    """Try variants until enough have run.

    Args:
        variants: newest generation first; at least one.
        folder_of: makes the folder with the runtime and exactly this variant.
        model: a GGUF of the bundle, verified.
        threads: for the runtime.
        programs: starts the children.
        on_progress: called with steps done.

    Raises:
        HostUnfitError: none of them runs here; with how each ended.
    """
    ran: list[Choice] = []
    failed: list[str] = []
    for done, variant in enumerate(variants):
        on_progress(Progress(f"trying CPU variant {variant}", done, len(variants), "steps"))
        outcome = _try(variant, folder_of(variant), model, threads, programs)
        if isinstance(outcome, Choice):
            ran.append(outcome)
        else:
            failed.append(f"{variant}: {outcome}")
        if len(ran) == RUNS_WANTED:
            break
    on_progress(Progress("choosing the CPU variant", 1, 1, "steps"))
    if not ran:
        raise HostUnfitError(
            "trial.none-runs",
            "CPU",
            expected=f"one of {', '.join(variants)} to run",
            found="; ".join(failed)[:1500],
            hint="check that libstdc++6 is installed; else this processor is too old for this bundle",
        )
    return fastest(ran)


def fastest(ran: list[Choice]) -> Choice:
    """The best of several that ran: by generation, within 3 % by prompt reading."""
    limit = TIE * max(choice.generated_tokens_per_s for choice in ran)
    close = [choice for choice in ran if choice.generated_tokens_per_s >= limit]
    return max(close, key=lambda choice: choice.prompt_tokens_per_s)


def recall(path: Path, key: str) -> Choice | None:
    """The choice that was made for the same runtime, model and processor before, or None."""
    try:
        value = json.loads(path.read_bytes())[sha256(key.encode())]
        choice = Choice(**value)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    kinds = [type(value[spec.name]) for spec in fields(Choice)]
    return choice if kinds == [str, int, int] else None


def remember(path: Path, key: str, choice: Choice) -> None:
    """Keep a choice, so that the same install does not try again."""
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError):
        known = {}
    kept = dict(list(known.items())[-15:]) if isinstance(known, dict) else {}
    write_file(path, json.dumps({**kept, sha256(key.encode()): asdict(choice)}).encode(), 0o600)


def _try(variant: str, folder: Path, model: Path, threads: int, programs: Programs) -> Choice | str:
    command: list[str | Path] = [
        folder / BENCH,
        "-m",
        model,
        "-p",
        str(_PROMPT),
        "-n",
        str(_GENERATED),
        "-r",
        str(_REPEATS),
    ]
    command += ["-t", str(threads), "-o", "json"]
    timeout_s = BASE_TIMEOUT_S + model.stat().st_size / BYTES_PER_S
    done = programs.run(command, f"trial-{variant}", cwd=folder, timeout_s=timeout_s)
    return _read(variant, done) if done.code == 0 else done.reason()


def _read(variant: str, done: Done) -> Choice | str:
    """What llama-bench measured: a JSON list with one object for the prompt and one for the generation."""
    try:
        rows = json.loads(done.said[done.said.index("[\n") :])
        prompt = next(float(row["avg_ts"]) for row in rows if row["n_prompt"])
        generated = next(float(row["avg_ts"]) for row in rows if row["n_gen"])
    except (ValueError, KeyError, TypeError, StopIteration):
        return f"no measurement: {done.reason()}"
    if not (prompt > 0 and generated > 0):
        return "no tokens"
    return Choice(variant, round(prompt), round(generated))
