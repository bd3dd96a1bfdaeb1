"""The trial of CPU variants, which chooses the fastest one that computes right on this host.

Owns the trial (docs/architecture.md, The runtime). Each variant runs `llama-bench` on an installed model in a child
process, from a folder that holds this variant alone. The fastest then evaluates a fixed prompt, and so does the x64
variant. Where a processor lacks an instruction that it states to have, the child ends, not the install.

Rules:
- the newest generations are tried first, until `RUNS_WANTED` have run. One that is far slower than a newer one ends
  this: what is older knows fewer instructions still;
- the one that generates fastest is chosen; among those within 3 % of it, the one that reads the prompt fastest;
- the first that runs is measured roughly before all, which shows whether this machine has time for measurements;
- they run in turn, `ROUNDS` times, and the best rate of each counts. Other work of the machine only slows a run down,
  and slows one run more than another by more than the variants differ;
- where a variant crashes, refuses, does not end in time or computes wrong, the next is tried, and the reason reported;
- a variant computes right where its logits are close to those of x64 on the same host; see
  `appliance.host.runtime.logits`. x64 itself is not compared;
- where none serves, x64 is run once more for the reason. The processor is too old only where x64 ends with SIGILL.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from appliance.engine_program import NO_DEBUGGER, refusal_reason
from appliance.entry_points import LOGITS
from appliance.host.layout.atomic_file import write_file
from appliance.host.machine.cpu import REFERENCE
from appliance.host.process.child import describe_exit
from appliance.host.process.programs import ProgramResult, Programs
from appliance.host.runtime.logits import TOLERANCE, Logits, read_logits
from bundles.progress import OnProgress, Progress
from signing.digest import sha256
from signing.errors import HostUnfitError

RUNS_WANTED, ROUNDS = 3, 2
TIE, FAR = 0.97, 0.7
BENCH = "llama-bench"
MODEL_NOT_LOADED = "trial.model-not-loaded"
"""The code of the error for a model that the runtime refuses."""
_ILLEGAL_INSTRUCTION = 128 + signal.SIGILL
BASE_TIMEOUT_S = 300.0
BYTES_PER_S = 20 << 20
"""The slowest reading of a model, in bytes per second, for which a run's timeout is long enough."""


@dataclass(frozen=True, slots=True)
class BenchLoad:
    """The work of one run of `llama-bench`: tokens of the prompt, tokens to generate, and whether it warms up first."""

    prompt: int
    generated: int
    has_warmup: bool

    @property
    def options(self) -> list[str]:
        """The options for its command line; each work is done once, since the rounds repeat it."""
        warmup = [] if self.has_warmup else ["--no-warmup"]
        return ["-p", str(self.prompt), "-n", str(self.generated), "-r", "1", *warmup]


SKETCH, MEASURE = BenchLoad(4, 2, False), BenchLoad(16, 8, True)
SLOW_TOKENS_PER_S = 4
"""Where the sketch is slower than this, it counts as the measurement: an emulated processor would take minutes."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A variant with its measurement; the chosen one, or one of several that ran.

    Args:
        variant: its name, for example `haswell`.
        prompt_tokens_per_s: whole tokens per second when reading a prompt.
        generated_tokens_per_s: whole tokens per second when generating text.
        divergence: of its results from those of x64, in nats; see `appliance.host.runtime.logits`.
        passed_over: variants that did not run or computed wrong, each with the reason.
    """

    variant: str
    prompt_tokens_per_s: int
    generated_tokens_per_s: int
    divergence: float = field(default=0.0, compare=False)
    passed_over: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Bench:
    """The runtime, model and programs that variants are tried with.

    Args:
        folder_of: makes a folder with the runtime and the one variant of the given name.
        python: an interpreter with this program; for a release, that of its environment.
        model: a GGUF of the bundle, verified.
        threads: for the runtime.
        programs: starts the children.
        package: the folder that holds the binding; None where `python` has it in its environment.
    """

    folder_of: Callable[[str], Path]
    python: Path
    model: Path
    threads: int
    programs: Programs
    package: Path | None = None

    @property
    def timeout_s(self) -> float:
        """The timeout of one child."""
        return BASE_TIMEOUT_S + self.model.stat().st_size / BYTES_PER_S


@dataclass(slots=True)
class Measured:
    """The measurements of a trial so far.

    Args:
        pending: variants that were not tried yet, newest generation first.
        ran: those that ran, each with its best rates.
        failed: those that do not count, each with the reason.
    """

    pending: list[str]
    ran: list[Choice] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def choose_variant(variants: tuple[str, ...], bench: Bench, on_progress: OnProgress) -> Choice:
    """Try variants until enough have run, and choose the fastest that computes right.

    Args:
        variants: newest generation first; at least one.
        bench: what they are tried with.
        on_progress: called with the variants tried.

    Returns:
        The chosen variant.

    Raises:
        HostUnfitError: none of them runs and computes right here; see `explain_failure`.
    """
    return choose_measured(measure(variants, bench, on_progress), bench, on_progress)


def measure(variants: tuple[str, ...], bench: Bench, on_progress: OnProgress) -> Measured:
    """Measure the first variants that run. This needs no Python: nothing is compared yet.

    Args:
        variants: newest generation first; at least one.
        bench: what they are tried with.
        on_progress: called with the variants tried.

    Returns:
        What was measured, for `choose_measured`.
    """
    found = Measured(list(variants))
    _measure_more(found, bench, on_progress)
    return found


def choose_measured(found: Measured, bench: Bench, on_progress: OnProgress) -> Choice:
    """Choose the fastest variant that computes right; where one computes wrong, further ones are measured.

    Args:
        found: from `measure`.
        bench: what they are tried with; its Python evaluates the fixed prompt.
        on_progress: called with the variants tried.

    Returns:
        The chosen variant.

    Raises:
        HostUnfitError: none of them runs and computes right here; see `explain_failure`.
    """
    reference: Logits | str | None = None
    while found.ran:
        best = fastest(found.ran)
        found.ran.remove(best)
        if best.variant != REFERENCE:
            on_progress(Progress(f"comparing {best.variant} with {REFERENCE}", 1, 1, "steps"))
            # Both at once: no time is taken here.
            with ThreadPoolExecutor(1) as beside:
                evaluation = beside.submit(evaluate, best.variant, bench)
                reference = reference or evaluate(REFERENCE, bench)
            divergence = _divergence(reference, evaluation.result())
            if isinstance(divergence, str):
                found.failed.append(f"{best.variant}: {divergence}")
                _measure_more(found, bench, on_progress)
                continue
            best = replace(best, divergence=divergence)
        on_progress(Progress("choosing the CPU variant", 1, 1, "steps"))
        return replace(best, passed_over=tuple(found.failed))
    raise explain_failure(bench, found.failed)


def _measure_more(found: Measured, bench: Bench, on_progress: OnProgress) -> None:
    """Measure pending variants until enough have run."""
    total = len(found.pending) + len(found.ran) + len(found.failed)
    while found.pending:
        fresh: list[Choice] = []
        while found.pending and len(found.ran) + len(fresh) < RUNS_WANTED:
            variant = found.pending.pop(0)
            done = total - len(found.pending) - 1
            on_progress(Progress(f"trying CPU variant {variant}", done, total, "steps"))
            newer = [one.generated_tokens_per_s for one in (*found.ran, *fresh)]
            outcome = _try(variant, bench, is_fast=bool(newer) and max(newer) >= SLOW_TOKENS_PER_S)
            if isinstance(outcome, str):
                found.failed.append(f"{variant}: {outcome}")
                continue
            fresh.append(outcome)
            if newer and outcome.generated_tokens_per_s < FAR * max(newer):
                break
        if len(found.ran) + len(fresh) > 1:
            for _ in range(ROUNDS - 1):
                fresh = list(_measured_again(fresh, bench, found.failed))
        found.ran += fresh
        if found.ran:
            return


def explain_failure(bench: Bench, failed: Sequence[str]) -> HostUnfitError:
    """The error for a runtime of which no variant served the model, by what x64 shows when it is run once more.

    Args:
        bench: what the variants were tried with.
        failed: each variant that was tried, with the reason why it does not count.

    Returns:
        `trial.none-runs`: the processor lacks an instruction that every variant needs. `trial.model-not-loaded`: the
        runtime refuses the model. `trial.no-result`: anything else.
    """
    # Only the verbose output has the reason of a model that is not loaded.
    done = _run_bench(REFERENCE, SKETCH, bench, "--verbose")
    if done.code == _ILLEGAL_INSTRUCTION:
        return HostUnfitError(
            "trial.none-runs",
            "CPU",
            expected=f"a processor that runs the variant {REFERENCE}",
            found="; ".join([*failed, f"{REFERENCE}: {describe_exit(done.code)}"])[:1500],
            hint="this processor is too old for this bundle: install it on a newer machine",
        )
    if done.code and (reason := refusal_reason(done.output)):
        return HostUnfitError(
            MODEL_NOT_LOADED,
            bench.model.name,
            expected="a model that the runtime of this bundle loads",
            found=reason,
            hint="the processor is not the cause: check the free memory, and give this message to who built the bundle",
        )
    return HostUnfitError(
        "trial.no-result",
        "the runtime",
        expected="a CPU variant that runs, and that computes what x64 does",
        found="; ".join(failed)[:1500] or done.reason(),
        hint="check libstdc++6 and the free memory; else give this message to who built the bundle",
    )


def fastest(ran: list[Choice]) -> Choice:
    """The fastest of several that ran: at generating, and among those within 3 % at reading the prompt."""
    limit = TIE * max(choice.generated_tokens_per_s for choice in ran)
    close = [choice for choice in ran if choice.generated_tokens_per_s >= limit]
    return max(close, key=lambda choice: choice.prompt_tokens_per_s)


def read_choice(path: Path, key: str) -> Choice | None:
    """Read the choice of an earlier install for the same runtime, model and processor.

    Args:
        path: of the file with the choices; may be missing or damaged.
        key: names runtime, model and processor.

    Returns:
        The choice; None where there is none.
    """
    try:
        value = json.loads(path.read_bytes())[sha256(key.encode())]
        choice = Choice(**{**value, "passed_over": tuple(map(str, value["passed_over"]))})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    # A choice without a divergence was never compared with x64.
    kinds = [type(value.get(spec.name)) for spec in fields(Choice)]
    return choice if kinds == [str, int, int, float, list] else None


def write_choice(path: Path, key: str, choice: Choice) -> None:
    """Write a choice to the file, so that an install of the same does not try again; see `read_choice`."""
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        known = {}
    kept = dict(list(known.items())[-15:]) if isinstance(known, dict) else {}
    write_file(path, json.dumps({**kept, sha256(key.encode()): asdict(choice)}).encode(), 0o600)


def compare(reference: Logits | str, variant: str, bench: Bench) -> float | str:
    """Compare the results of a variant with those of x64.

    Args:
        reference: the results of x64, or why there are none.
        variant: its name; it is evaluated here.
        bench: what it is tried with.

    Returns:
        The divergence in nats; or, as text, why it does not count as right.
    """
    return _divergence(reference, "" if isinstance(reference, str) else evaluate(variant, bench))


def _divergence(reference: Logits | str, found: Logits | str) -> float | str:
    if isinstance(reference, str):
        return f"cannot be compared, {REFERENCE} ended with {reference}"
    if isinstance(found, str):
        return f"no results: {found}"
    divergence = reference.divergence(found)
    if not divergence <= TOLERANCE:
        return f"wrong results, {divergence:.3g} from those of {REFERENCE} where {TOLERANCE} is allowed"
    return divergence


def evaluate(variant: str, bench: Bench) -> Logits | str:
    """Evaluate the fixed prompt with a variant; returns its logits or, as text, why there are none."""
    folder, name = bench.folder_of(variant), f"logits-{variant}"
    result = bench.programs.scratch / f"{name}.bin"
    result.unlink(missing_ok=True)
    command: list[str | Path] = [bench.python, "-I", "-B", "-m", LOGITS]
    command += [folder, variant, bench.package or "-", bench.model, str(bench.threads), result]
    done = bench.programs.run(command, name, cwd=folder, timeout_s=bench.timeout_s, env=NO_DEBUGGER)
    if done.code != 0:
        return done.reason()
    return read_logits(result) or "no numbers"


def _try(variant: str, bench: Bench, *, is_fast: bool) -> Choice | str:
    if not is_fast:
        sketch = _measure(variant, SKETCH, bench)
        if isinstance(sketch, str) or sketch.generated_tokens_per_s < SLOW_TOKENS_PER_S:
            return sketch
    return _measure(variant, MEASURE, bench)


def _measured_again(ran: list[Choice], bench: Bench, failed: list[str]) -> Iterator[Choice]:
    """Measure each again and keep its better rates; a slow machine has no time for this, and keeps the first."""
    for before in ran:
        if before.generated_tokens_per_s < SLOW_TOKENS_PER_S:
            yield before
            continue
        now = _measure(before.variant, MEASURE, bench)
        if isinstance(now, str):
            failed.append(f"{before.variant}: {now}")
            continue
        yield replace(
            before,
            prompt_tokens_per_s=max(before.prompt_tokens_per_s, now.prompt_tokens_per_s),
            generated_tokens_per_s=max(before.generated_tokens_per_s, now.generated_tokens_per_s),
        )


def _measure(variant: str, load: BenchLoad, bench: Bench) -> Choice | str:
    done = _run_bench(variant, load, bench)
    return _read(variant, done) if done.code == 0 else done.reason()


def _run_bench(variant: str, load: BenchLoad, bench: Bench, *more: str) -> ProgramResult:
    folder = bench.folder_of(variant)
    command: list[str | Path] = [folder / BENCH, "-m", bench.model, *load.options]
    command += ["-t", str(bench.threads), "-o", "json", *more]
    return bench.programs.run(command, f"trial-{variant}", cwd=folder, timeout_s=bench.timeout_s, env=NO_DEBUGGER)


def _best(row: dict[str, Any]) -> float:
    return max(float(rate) for rate in row["samples_ts"])


def _read(variant: str, done: ProgramResult) -> Choice | str:
    """Parse the output of llama-bench: a JSON list with one object for the prompt and one for the generation."""
    try:
        rows = json.loads(done.output[done.output.index("[\n") :])
        prompt = next(_best(row) for row in rows if row["n_prompt"])
        generated = next(_best(row) for row in rows if row["n_gen"])
        found = Choice(variant, round(prompt), round(generated))
    except (ValueError, KeyError, TypeError, StopIteration, OverflowError, RecursionError):
        return f"no measurement: {done.reason()}"
    if not (prompt > 0 and generated > 0):
        return "no tokens"
    return found
