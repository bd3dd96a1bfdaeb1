"""Quantisation of a model with the bundle's own `llama-quantize`: `quantize:` in a recipe.

Owns how the program is called, and what is recorded of it. It must never change a model in another way, or use a
program that is not packed in the same bundle.

Rules:
- the same source, runtime and arguments give the same bytes, with any number of threads and on any processor;
- for this, no CPU variant lies beside the program: it computes with plain C code;
- only weights of 16 or 32 bits are quantised; others only where the recipe allows it, and then the lineage shows it;
- a result is cached under the digest of all that shaped it, and hashed again before it is used;
- the program reads a file that others wrote: it runs with nothing of this machine's environment, and when it dies, its
  last lines are shown.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from appliance.builder.cache.content_store import Cache, disk_full
from appliance.builder.cache.keyed_record import write_record
from appliance.builder.lock.lockfile import Pin
from appliance.builder.lock.pinned_fetch import cached
from appliance.builder.models.produced_file import produce_file, recorded_file
from appliance.builder.runtime.build_types import BuiltRuntime
from appliance.builder.runtime.compilation.child import LastLines, run
from appliance.builder.runtime.programs import unpack_programs
from bundles.gguf.header import GgufHeader, read_header
from bundles.progress import OnProgress, Progress
from signing.digest import Digest, sha256
from signing.errors import ApplianceError, UsageError

PROGRAM = "llama-quantize"
WHOLE_TYPES = ("F32", "F16", "BF16")
_BITS = {"F32": 32, "F16": 16, "BF16": 16}
_MAX_OTHER_BITS = 12
_STEP = re.compile(r"\[\s*(\d+)/\s*(\d+)\] ")
_MIN_FREE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class QuantisationRequest:
    """The quantisation that a recipe asks for.

    Args:
        model: its name in the recipe.
        quantisation: one of `QUANTISATIONS`.
        allow_requantize: whether weights that are quantised already may be quantised again.
    """

    model: str
    quantisation: str
    allow_requantize: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments that shape the result, as the program takes them, without paths."""
        return (*(["--allow-requantize"] if self.allow_requantize else []), self.quantisation)

    def step(self, runtime: Digest) -> str:
        """One step of the model's lineage (FORMAT 3.1)."""
        return " ".join((PROGRAM, f"sha256:{runtime}", *self.arguments))


def quantise(
    request: QuantisationRequest,
    source: Path,
    digest: Digest,
    runtime: BuiltRuntime,
    cache: Cache,
    on_progress: OnProgress,
) -> Pin:
    """Quantise a model, or take the result from the cache.

    Args:
        request: what the recipe asks for.
        source: a GGUF, verified.
        digest: of the source.
        runtime: the one that the bundle carries.
        cache: gets the result, under its digest.
        on_progress: called with tensors done.

    Returns:
        Name, size and digest of the result, which lies in the cache.

    Raises:
        UsageError: the source is quantised already, and the recipe does not allow a second time.
        NotTrustedError: the source is a GGUF that our parser refuses.
        ApplianceError: the program failed, or the disk is full.
    """
    header = _header(source)
    _check_source(request, header)
    name = f"{request.model}.{request.quantisation}.gguf"
    key = sha256("\n".join((PROGRAM, digest, runtime.sha256, *request.arguments)).encode())
    record = cache.folder("quantised") / f"{key[:16]}.json"
    if (found := recorded_file(record, key, name)) and cached(found, cache, on_progress):
        return found

    def write(out: Path) -> None:
        _run_program(request, source, out, runtime, record.with_suffix(".log"), on_progress)
        _check_result(request, out)

    result, size = produce_file(cache, key, _max_bytes(request, header), write)
    write_record(record, key, {"sha256": result, "size": size})
    return Pin(name, size, result)


def _header(path: Path) -> GgufHeader:
    with path.open("rb") as stream:
        return read_header(stream, path.stat().st_size, path.name)


def _check_source(request: QuantisationRequest, header: GgufHeader) -> None:
    quantised = sorted({tensor.type.name for tensor in header.tensors} - set(WHOLE_TYPES))
    if quantised and not request.allow_requantize:
        raise UsageError(
            "quantise.twice",
            f"model {request.model}: quantize",
            expected="a source whose weights are F32, F16 or BF16",
            found=f"{', '.join(quantised)} in it",
            hint="name such a source, or add `allow_requantize: true`, which costs quality and is recorded",
        )


def _max_bytes(request: QuantisationRequest, header: GgufHeader) -> int:
    return header.data_start + header.parameters * _BITS.get(request.quantisation, _MAX_OTHER_BITS) // 8


def _run_program(
    request: QuantisationRequest, source: Path, out: Path, runtime: BuiltRuntime, log: Path, on_progress: OnProgress
) -> None:
    last = LastLines()

    def on_line(line: str) -> None:
        if step := _STEP.match(line):
            on_progress(Progress(f"quantising {request.model}", int(step[1]), int(step[2]), "steps"))
        else:
            last.on_line(line)

    *options, quantisation = request.arguments
    threads = str(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="quantise-", dir=out.parent) as name:
        folder = Path(name)
        # Without the CPU variants: see the rules.
        unpack_programs(runtime.path, folder)
        argv = [str(folder / PROGRAM), *options, str(source.resolve()), str(out), quantisation, threads]
        log.write_bytes(b"")
        status = run(argv, environment={"LC_ALL": "C", "HOME": name}, log=log, on_line=on_line)
    if status == 0:
        return
    if shutil.disk_usage(out.parent).free < _MIN_FREE_BYTES:
        raise disk_full(out, source.stat().st_size)
    raise ApplianceError(
        "quantise.failed",
        f"model {request.model}",
        expected=f"success of {PROGRAM} {' '.join(request.arguments)}",
        found=last.describe(status),
        hint=f"the whole log: {log}",
    )


def _check_result(request: QuantisationRequest, path: Path) -> None:
    found = _header(path).quantisation
    if found != request.quantisation:
        raise ApplianceError(
            "quantise.failed", f"model {request.model}", expected=f"a model of type {request.quantisation}", found=found
        )
