"""Merging of a split model with the bundle's own `llama-gguf-split`: one GGUF from the parts that the lock pins.

Owns how the program is called, and what is recorded of it. It must never use a program that is not packed in the same
bundle, or merge parts that were not compared with the lock.

Rules:
- the same parts and runtime give the same bytes;
- a result is cached under the digest of all that shaped it, and hashed again before it is used;
- the program reads files that others wrote: it runs with nothing of this machine's environment, and when it fails, its
  last lines are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.builder.cache.built_entries import remove
from appliance.builder.cache.content_store import Cache, require_space
from appliance.builder.cache.keyed_record import write_record
from appliance.builder.lock.lockfile import Pin
from appliance.builder.lock.pinned_fetch import cached
from appliance.builder.models.produced_file import recorded_file
from appliance.builder.models.split_set import parts_argument
from appliance.builder.runtime.build_types import BuiltRuntime
from appliance.builder.runtime.compilation.child import LastLines, run
from appliance.builder.runtime.programs import unpack_programs
from appliance.builder.sources.file import measure
from appliance.engine_program import NO_DEBUGGER
from bundles.gguf.header import read_header
from bundles.progress import OnProgress, Progress
from signing.digest import Digest, sha256
from signing.errors import ApplianceError

PROGRAM = "llama-gguf-split"
MERGE = "--merge"


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """A split model to merge.

    Args:
        model: its name in the recipe.
        parts: the pin of each part, in order.
    """

    model: str
    parts: tuple[Pin, ...]

    @property
    def listed(self) -> str:
        """All parts in one word; see `split_set.parts_argument`."""
        return parts_argument([(part.file, part.sha256) for part in self.parts])

    def step(self, runtime: Digest) -> str:
        """One step of the model's lineage (FORMAT 3.1)."""
        return " ".join((PROGRAM, f"sha256:{runtime}", MERGE, self.listed))


def merge(
    request: MergeRequest, files: Sequence[Path], runtime: BuiltRuntime, cache: Cache, on_progress: OnProgress
) -> Pin:
    """Merge the parts of a model, or take the result from the cache.

    Args:
        request: the model and its parts.
        files: of the parts, verified, in order.
        runtime: the one that the bundle carries.
        cache: gets the result, under its digest.
        on_progress: called with parts done.

    Returns:
        Name, size and digest of the result, which lies in the cache.

    Raises:
        NotTrustedError: the result is a GGUF that our parser refuses.
        ApplianceError: the program failed, or the disk is full.
    """
    name = f"{request.model}.gguf"
    key = sha256("\n".join((PROGRAM, MERGE, runtime.sha256, *(part.sha256 for part in request.parts))).encode())
    record = cache.folder("merged") / f"{key[:16]}.json"
    if (found := recorded_file(record, key, name)) and cached(found, cache, on_progress):
        return found
    with cache.claim(key) as claimed:
        folder = claimed.with_name(f"{key[:16]}.merging")
        remove(folder)
        require_space(claimed.parent, sum(part.size for part in request.parts))
        try:
            folder.mkdir()
            out = _run_program(request, files, folder, runtime, record.with_suffix(".log"), on_progress)
            digest, size = measure(out)
            cache.adopt(out, digest)
        finally:
            remove(folder)
    write_record(record, key, {"sha256": digest, "size": size})
    return Pin(name, size, digest)


def _run_program(
    request: MergeRequest,
    files: Sequence[Path],
    folder: Path,
    runtime: BuiltRuntime,
    log: Path,
    on_progress: OnProgress,
) -> Path:
    last, out = LastLines(), folder / "merged.gguf"
    label, done = f"merging {request.model}", 0

    def on_line(line: str) -> None:
        nonlocal done
        last.on_line(line)
        if "writing tensors" in line:
            done += 1
            on_progress(Progress(label, done, len(files), "steps"))

    program = folder / "program"
    program.mkdir()
    unpack_programs(runtime.path, program)
    # The program finds the other parts beside the first one, by names of this form.
    for number, file in enumerate(files, 1):
        (folder / f"part-{number:05}-of-{len(files):05}.gguf").symlink_to(file.resolve())
    first = folder / f"part-00001-of-{len(files):05}.gguf"
    log.write_bytes(b"")
    environment = {"LC_ALL": "C", "HOME": str(folder), **NO_DEBUGGER}
    status = run(
        [str(program / PROGRAM), MERGE, str(first), str(out)], environment=environment, log=log, on_line=on_line
    )
    if status or not out.is_file():
        raise ApplianceError(
            "merge.failed",
            f"model {request.model}",
            expected=f"success of {PROGRAM} {MERGE}",
            found=last.describe(status),
            hint=f"the whole log: {log}",
        )
    with out.open("rb") as stream:
        read_header(stream, out.stat().st_size, request.model)
    return out
