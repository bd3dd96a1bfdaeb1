"""The trial of every model of a bundle: the bundle's own engine loads it once, and answers, embeds or ranks.

Owns the trial, which takes place before anything is signed. The engine is the one of the bundle's runtime wheel. It
runs in the empty tree of the first target, with the packages that the bundle brings, and without a network.

Rules:
- a model that the engine does not load fails the build by name, with the engine's own reason; nothing is written;
- the engine has the options of a host (`appliance.engine_program`), the recipe's context, and one conversation;
- the model's bytes are those of its digest. Where they are not, packing refuses them, and nothing is recorded here;
- a trial is recorded under the digest of the model, the runtime's wheel, the context and the question. The same is not
  tried again;
- nothing skips the trial: a machine with too little memory, or of another architecture, is unfit (exit 6).
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.builder.cache.content_store import Cache
from appliance.builder.cache.keyed_record import read_record, write_record
from appliance.builder.chunking.chunker import Source
from appliance.builder.debian.rootfs import build
from appliance.builder.proof.closure_proof import INSIDE, target_closure, tree_of
from appliance.builder.proof.sandbox import TIMED_OUT, WORK, SandboxResult, run_in
from appliance.builder.recipe.recipe import Recipe
from appliance.builder.runtime.build_types import BuiltRuntime
from appliance.builder.runtime.built_variants import read_cpu_flags, variants_for_trial
from appliance.builder.runtime.programs import VARIANT_FILE, unpack_programs
from appliance.builder.sources.file import measure
from appliance.engine_program import PROGRAM, EngineSettings, engine_arguments, engine_environment, refusal_reason
from bundles.gguf.header import GgufHeader, read_header
from bundles.gguf.kind import CHAT, EMBED, RERANK, task_of
from bundles.gguf.memory import Workload, estimate
from bundles.progress import OnProgress, Progress, ignore
from signing.digest import Digest, sha256
from signing.errors import ApplianceError, HostUnfitError

SENTENCE = "The capital of France is Paris."
OTHER_SENTENCE = "Cats sleep."
"""Of another meaning, so that a model which ranks gives it another score."""
MAX_TOKENS = 4
BASE_TIMEOUT_S = 300.0
BYTES_PER_S = 20 << 20
"""The slowest reading of a model, in bytes per second, for which a trial's time is long enough."""
MEMINFO = Path("/proc/meminfo")

_PROGRAMS = ("packages.sh", "engine.sh", "engine.py")
_MODEL, _SOCKET = "model.gguf", "/tmp/engine.sock"
_SIGILL, _SIGKILL = 128 + signal.SIGILL, 128 + signal.SIGKILL
_MAX_FOUND = 400
_EXPECTED = {
    CHAT: "an answer to one sentence",
    EMBED: "an embedding of one sentence",
    RERANK: "two scores of two sentences",
}


@dataclass(frozen=True, slots=True)
class TrialModel:
    """A model of the recipe as the bundle will hold it.

    Args:
        name: in the recipe.
        path: in the bundle.
        file: its GGUF on this machine.
        sha256: that the file must have.
        context: tokens of one conversation.
    """

    name: str
    path: str
    file: Path
    sha256: Digest
    context: int


def try_models(
    recipe: Recipe,
    models: Sequence[TrialModel],
    runtime: BuiltRuntime,
    sources: Sequence[Source],
    cache: Cache,
    on_progress: OnProgress = ignore,
) -> int:
    """Let the bundle's engine load each model once and answer with it.

    Args:
        recipe: its first target names the tree.
        models: of the bundle.
        runtime: whose wheel the bundle carries.
        sources: everything that the bundle will hold, for the packages of the target.
        cache: keeps trees and records.
        on_progress: called with models done.

    Returns:
        How many models were tried; 0 where all were on record.

    Raises:
        ApplianceError: a model is not loaded, or does not answer: with the engine's reason.
        NotTrustedError: a model that our parser refuses.
        HostUnfitError: this machine has too little memory, or cannot run the engine or its tree.
    """
    if not models:
        return 0
    target = recipe.targets[0]
    tree = tree_of(target.os, target.arch)
    packages = target_closure(sources, target.os, target.python[0]).files
    packages = {path: file for path, file in packages.items() if path.startswith("packages/")}
    tried = 0
    for model in models:
        key = _key(model, runtime)
        record = cache.folder("proof") / f"model-{key[:16]}.json"
        if read_record(record, key) is not None or measure(model.file)[0] != model.sha256:
            continue
        label = f"loading {model.name} with the bundle's engine"
        on_progress(Progress(label, 0, 1, "steps"))
        _try(model, runtime, packages, build(tree, cache, on_progress), cache)
        write_record(record, key, {"model": model.sha256, "runtime": runtime.sha256})
        on_progress(Progress(label, 1, 1, "steps"))
        tried += 1
    return tried


def _key(model: TrialModel, runtime: BuiltRuntime) -> Digest:
    lines = [model.sha256, runtime.sha256, str(model.context), SENTENCE, *engine_arguments(_settings(model, 1, CHAT))]
    lines += [sha256((INSIDE / name).read_bytes()) for name in _PROGRAMS]
    return sha256("\n".join(lines).encode())


def _settings(model: TrialModel, threads: int, task: str) -> EngineSettings:
    path = f"{WORK}/{_MODEL}"
    # The alias shows nowhere: a model of another name is the same trial.
    return EngineSettings(path, "model", _SOCKET, model.context, 1, threads, task == EMBED, task == RERANK)


def _try(model: TrialModel, runtime: BuiltRuntime, packages: dict[str, Path], tree: Path, cache: Cache) -> None:
    with model.file.open("rb") as stream:
        header = read_header(stream, model.file.stat().st_size, model.path)
    _check_memory(model, header)
    timeout_s = BASE_TIMEOUT_S + header.file_size / BYTES_PER_S
    with tempfile.TemporaryDirectory(prefix="trial-", dir=cache.folder("proof")) as name:
        work = Path(name)
        work.chmod(0o755)
        _fill(work, model, runtime, packages, header, timeout_s)
        result = run_in(
            tree,
            work,
            ["sh", f"{WORK}/engine.sh"],
            many_owners=bool(packages),
            read_only={_MODEL: model.file},
            # Beside the engine's own time: for the packages.
            timeout_s=timeout_s + BASE_TIMEOUT_S,
        )
    _judge(model, header, result)


def _fill(
    work: Path,
    model: TrialModel,
    runtime: BuiltRuntime,
    packages: dict[str, Path],
    header: GgufHeader,
    timeout_s: float,
) -> None:
    for folder in ("runtime", "variants", *(["packages"] if packages else [])):
        (work / folder).mkdir()
    unpack_programs(runtime.path, work / "runtime", work / "variants")
    for path, source in packages.items():
        # Never a hard link: a package's script could write into the cache's own file.
        shutil.copyfile(source, work / path)
    for name in _PROGRAMS:
        shutil.copyfile(INSIDE / name, work / name)
    threads = max(1, len(os.sched_getaffinity(0)) - 1)
    task = task_of(header)
    settings = _settings(model, threads, task)
    route, body = _question(task)
    trial = {
        "variants": [VARIANT_FILE.format(name) for name in variants_for_trial(runtime.variants, read_cpu_flags())],
        "command": [f"{WORK}/runtime/{PROGRAM}", *engine_arguments(settings)],
        "environment": engine_environment("/tmp"),
        "path": route,
        "body": body,
        "timeout_s": timeout_s,
    }
    (work / "trial.json").write_text(json.dumps(trial), "utf-8")


def _question(task: str) -> tuple[str, dict[str, Any]]:
    if task == EMBED:
        return "/v1/embeddings", {"input": SENTENCE}
    if task == RERANK:
        return "/v1/rerank", {"query": SENTENCE, "documents": [SENTENCE, OTHER_SENTENCE]}
    messages = [{"role": "user", "content": SENTENCE}]
    return "/v1/chat/completions", {"messages": messages, "max_tokens": MAX_TOKENS, "temperature": 0}


def _check_memory(model: TrialModel, header: GgufHeader) -> None:
    needed, available = estimate(header, Workload(model.context, 1)).total, _available_bytes()
    if available < needed:
        raise _too_little_memory(model, f"{needed} bytes", f"{available} bytes")


def _available_bytes() -> int:
    for line in MEMINFO.read_text("ascii", "replace").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def _too_little_memory(model: TrialModel, needed: str, found: str) -> HostUnfitError:
    return HostUnfitError(
        "model.memory",
        f"model {model.name}",
        expected=f"{needed} of free memory, so that the engine loads the model once before it is signed",
        found=found,
        hint="build on a machine with more memory, or choose a smaller model or `context`",
    )


def _judge(model: TrialModel, header: GgufHeader, result: SandboxResult) -> None:
    try:
        answer = json.loads(result.output)
        code, log, body = answer["code"], str(answer["log"]), str(answer["body"])
        variant, status = str(answer["variant"]), int(answer["status"])
    except (ValueError, LookupError, TypeError, RecursionError):
        if result.code == _SIGKILL:
            raise _too_little_memory(model, "more", "the system ended the engine (SIGKILL)") from None
        reason = (
            "no end in time" if result.code == TIMED_OUT else " / ".join(result.complaint.split("\n"))[-_MAX_FOUND:]
        )
        raise _not_loaded(model, reason or f"exit code {result.code}") from None
    if code == _SIGKILL:
        raise _too_little_memory(model, "more", "the system ended the engine (SIGKILL)")
    if code == _SIGILL:
        raise HostUnfitError(
            "model.untried",
            f"model {model.name}",
            expected="a processor that runs a CPU variant of the runtime",
            found=f"{variant} ended with SIGILL",
            hint="build on a newer machine",
        )
    if status == 0:
        end = "it was not ready in time" if code is None else f"exit status {code}"
        raise _not_loaded(model, refusal_reason(log) or f"{' / '.join(log.splitlines()[-3:])} ({end})"[-_MAX_FOUND:])
    if reason := _wrong(header, status, body):
        raise ApplianceError(
            "model.no-answer",
            f"model {model.name}",
            expected=_EXPECTED[task_of(header)],
            found=reason,
            hint="take another file of this model: hosts would refuse the bundle for the same reason",
        )


def _not_loaded(model: TrialModel, reason: str) -> ApplianceError:
    return ApplianceError(
        "model.not-loaded",
        f"model {model.name}",
        expected="a model that the engine of this bundle loads",
        found=reason,
        hint="take another file of this model, or a release of llama-cpp-python that knows it",
    )


def _wrong(header: GgufHeader, status: int, body: str) -> str:
    """Why an answer does not count; empty for a good one."""
    try:
        value = json.loads(body)
        if status != 200:
            return f"status {status}: {value['error']['message']}"[:_MAX_FOUND]
        task = task_of(header)
        if task == CHAT:
            return "" if value["usage"]["completion_tokens"] >= 1 else "no token"
        if task == RERANK:
            return _wrong_scores([float(one["relevance_score"]) for one in value["results"]])
        return _wrong_row([float(number) for number in value["data"][0]["embedding"]], header.embedding)
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return f"status {status}, and an answer of another form"


def _wrong_row(row: list[float], width: int) -> str:
    if len(row) != width or not all(map(math.isfinite, row)) or not any(row):
        return f"{len(row)} numbers, from {row[:4]}, where {width} finite ones are due that are not all zero"
    return ""


def _wrong_scores(scores: list[float]) -> str:
    if len(scores) != 2 or not all(map(math.isfinite, scores)) or scores[0] == scores[1]:
        return f"{len(scores)} scores, {scores[:4]}, where 2 finite ones are due that differ"
    return ""
