"""Conversion of a model's own files to GGUF with llama.cpp's converter: `convert:` in a recipe.

Owns which files the converter sees, how it is called, and what is recorded of it. It must never change the converter,
or give it a file that the lock does not name.

Rules:
- the converter is the one of the runtime's own sdist;
- its imports (torch, transformers, numpy) are too big to pack or to lock: a person names a Python that has them;
- the lock pins the result, with the versions of the imports;
- a build takes the pinned result from the cache by its digest, and needs that Python only where the cache lacks it;
- a result that is produced again must have the pinned bytes;
- the files are data: by their endings none is a program, and none is a pickle, which would be one;
- the converter reads files that others wrote: it has no network, and nothing of this machine's environment.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance.builder.cache.content_store import Cache
from appliance.builder.lock.lockfile import Locked, Pin
from appliance.builder.lock.pinned_fetch import cached, local_path
from appliance.builder.models.produced_file import produce_file
from appliance.builder.runtime.compilation.child import LastLines, run
from appliance.builder.runtime.compilation.source import LLAMA, unpack_sdist
from bundles.gguf.header import read_header
from bundles.progress import OnProgress, Progress
from signing.digest import Digest, sha256
from signing.errors import ApplianceError, UsageError

PROGRAM = "convert_hf_to_gguf.py"
NEEDS = ("numpy", "torch", "transformers")
_OPTION = "--converter PYTHON, the path of a Python that has " + ", ".join(NEEDS)
_VERSIONS = f"import importlib.metadata as m; print(*(f'{{n}}=={{m.version(n)}}' for n in {NEEDS!r}), sep=', ')"
_VERSION_LINE = re.compile(r"\w+==\S+(, \w+==\S+)*")


@dataclass(frozen=True, slots=True)
class ConversionRequest:
    """A model to convert, the converter, and the type of the result.

    Args:
        model: its name in the recipe.
        to: `F32`, `F16` or `BF16`.
        sdist: digest of the sdist that holds the converter.
        inputs: the digest of each file of the model, by its path in the model's folder.
    """

    model: str
    to: str
    sdist: Digest
    inputs: Mapping[str, Digest]

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments that shape the result, as the program takes them, without paths."""
        return ("--outtype", self.to.lower(), "--model-name", self.model)

    @property
    def step(self) -> str:
        """One step of the model's lineage (FORMAT 3.1): the converter, its arguments, and a digest of all inputs."""
        listed = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.inputs.items()))
        return " ".join((PROGRAM, f"sha256:{self.sdist}", *self.arguments, f"inputs=sha256:{sha256(listed.encode())}"))

    @property
    def file(self) -> str:
        """The name of the result."""
        return f"{self.model}.{self.to}.gguf"


def convert(
    request: ConversionRequest,
    sdist: Path,
    version: str,
    files: Mapping[str, Path],
    python: Path | None,
    cache: Cache,
    on_progress: OnProgress,
) -> tuple[Pin, str]:
    """Run the converter.

    Args:
        request: the model and the type.
        sdist: verified, of that version of the runtime.
        files: verified, by their path in the model's folder.
        python: has what the converter imports; None where the user named none.
        cache: gets the result, under its digest.
        on_progress: called at the beginning and at the end.

    Returns:
        Name, size and digest of the result, which lies in the cache; and the versions of the converter's imports.

    Raises:
        UsageError: no Python, or one without what the converter imports.
        NotTrustedError: the result is a GGUF that our parser refuses.
        ApplianceError: the converter failed, or the disk is full.
    """
    task = f"converting {request.model}"
    on_progress(Progress(task, 0, 1, "steps"))
    log = cache.folder("converted") / f"{sha256(request.step.encode())[:16]}.log"
    log.write_bytes(b"")
    versions = _versions(request, python, log)

    def write(out: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="convert-", dir=out.parent) as name:
            _run_program(request, sdist, version, files, Path(str(python)), out, Path(name), log)
        _check_result(request, out)

    max_bytes = 2 * sum(path.stat().st_size for path in files.values())
    digest, size = produce_file(cache, sha256(f"{PROGRAM} {request.step}".encode()), max_bytes, write)
    on_progress(Progress(task, 1, 1, "steps"))
    return Pin(request.file, size, digest), versions


def converted(locked: Locked, cache: Cache, *, is_read_later: bool, on_progress: OnProgress) -> Path | None:
    """The pinned result, where the cache has it. It is hashed here, unless the caller hashes it while it reads."""
    if is_read_later:
        return local_path(locked, cache, Path())
    return cached(locked.used, cache, on_progress)


def check_pinned(locked: Locked, produced: Pin, versions: str, cache: Cache) -> None:
    """Refuse a result that is not what the lock pins.

    Args:
        locked: the line of the lock.
        produced: the result in the cache.
        versions: of the converter's imports, for the error.
        cache: loses a result that differs.

    Raises:
        ApplianceError: the result differs.
    """
    if (produced.sha256, produced.size) == (locked.sha256, locked.size):
        return
    cache.discard(produced.sha256)
    raise ApplianceError(
        "convert.differs",
        f"model {locked.name}: convert",
        expected=f"sha256 {locked.sha256}, {locked.size} bytes, as the lock pins it, made with {locked.version}",
        found=f"sha256 {produced.sha256}, {produced.size} bytes, made with {versions}",
        hint="take the versions that the lock names, or pin this result: appliance lock --upgrade --converter PYTHON",
    )


def _versions(request: ConversionRequest, python: Path | None, log: Path) -> str:
    lines: list[str] = []
    if python is not None and python.is_file():
        run(
            [str(python.absolute()), "-c", _VERSIONS],
            environment=_environment(log.parent),
            log=log,
            on_line=lines.append,
        )
    if lines and _VERSION_LINE.fullmatch(lines[-1]):
        return lines[-1].replace("==", " ")
    raise UsageError(
        "convert.no-python",
        f"model {request.model}: convert",
        expected=f"its GGUF in the cache, or a Python that has {', '.join(NEEDS)}",
        found=f"{python}: {lines[-1] if lines else 'no such program'}" if python else "neither",
        hint=f"run the same command with {_OPTION}",
    )


def _run_program(
    request: ConversionRequest,
    sdist: Path,
    version: str,
    files: Mapping[str, Path],
    python: Path,
    out: Path,
    folder: Path,
    log: Path,
) -> None:
    model = folder / request.model
    for name, path in files.items():
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).symlink_to(path.resolve())
    unpack_sdist(sdist, folder / "sdist", version)
    last = LastLines()
    script = folder / "sdist" / LLAMA / PROGRAM
    argv = [
        *_without_network(),
        str(python.absolute()),
        str(script),
        *request.arguments,
        "--outfile",
        str(out),
        str(model),
    ]
    status = run(argv, environment=_environment(folder), log=log, on_line=last.on_line)
    if status:
        raise _failed(request, f"success of {PROGRAM} {' '.join(request.arguments)}", last.describe(status), log)


def _environment(home: Path) -> dict[str, str]:
    # PATH: unshare is looked for there, and some packages ask programs of the system about the processor.
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "PYTHONDONTWRITEBYTECODE", "PYTHONNOUSERSITE")
    fixed = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(home), "PYTHONHASHSEED": "0"}
    return fixed | dict.fromkeys(names, "1")


def _without_network() -> list[str]:
    own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["/usr/bin/unshare", *own, "--net", "--"]


def _check_result(request: ConversionRequest, path: Path) -> None:
    with path.open("rb") as stream:
        found = read_header(stream, path.stat().st_size, request.file).quantisation
    if found != request.to:
        raise _failed(request, f"a model of type {request.to}", found, None)


def _failed(request: ConversionRequest, expected: str, found: str, log: Path | None) -> ApplianceError:
    hint = f"the whole log: {log}" if log else "name the type that its weights have"
    return ApplianceError("convert.failed", f"model {request.model}", expected=expected, found=found, hint=hint)
