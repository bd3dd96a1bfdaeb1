"""The files of the wheel: which of the build folder are packed, under what names, and their checks.

Owns the list of what is packed. It must never change a file's bytes.

Rules:
- the programs, the libraries that the binding opens, the CPU variants, and what these need by their NEEDED entries;
- the binding and the converters, as Python source;
- every binary is a regular file in one folder, finds the others by `$ORIGIN`, and needs no foreign library;
- no path of the build machine is in any of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from appliance.builder.runtime.compilation.source import LLAMA
from appliance.builder.runtime.settings import PROGRAMS
from appliance.builder.runtime.symbols import Elf, SymbolFloors, check_needed, read_elf, symbol_floors
from signing.errors import ApplianceError

LIBRARY_FOLDER = "llama_cpp/lib"
CONVERTER_FOLDER = "llama_cpp/convert"
CONVERTERS = ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py")
_OPENED = ("libggml.so", "libllama.so", "libmtmd.so")
_PYTHON = ("*.py", "py.typed")
# The modules of llama.cpp that the converters import; without the tools of gguf-py and its typing marker.
_IMPORTED = ("conversion/*.py", "gguf-py/gguf/*.py")


@dataclass(frozen=True, slots=True)
class WheelFile:
    """One file of the wheel: its path inside, where its bytes are, and 0o644 or 0o755."""

    path: str
    source: Path
    mode: int


def collect_binaries(binaries: Path, variants: tuple[str, ...]) -> tuple[tuple[WheelFile, ...], SymbolFloors]:
    """Choose and check the programs and libraries.

    Args:
        binaries: where the linker put them.
        variants: the CPU variants that must be there.

    Returns:
        The files, and the symbol versions that they need of a system.

    Raises:
        ApplianceError: one is missing, needs a foreign library, or would search outside its folder.
    """
    elves: dict[str, Elf] = {}
    waiting = [*PROGRAMS, *_OPENED, *(variant_file(name) for name in variants)]
    while waiting:
        name = waiting.pop()
        if name in elves:
            continue
        path = binaries / name
        if path.is_symlink() or not path.is_file():
            raise ApplianceError(
                "runtime.file-missing", name, expected="a regular file", found="none in the build folder"
            )
        elves[name] = read_elf(path)
        waiting += [needed for needed in elves[name].needed if (binaries / needed).exists()]
    check_needed(elves)
    _check_names(elves)
    parts = tuple(
        WheelFile(f"{LIBRARY_FOLDER}/{name}", binaries / name, 0o755 if name in PROGRAMS else 0o644)
        for name in sorted(elves)
    )
    return parts, symbol_floors(elves.items())


def collect_binding(source: Path) -> tuple[WheelFile, ...]:
    """The modules of the sdist's Python package, and nothing else of it."""
    package = source / "llama_cpp"
    found = sorted({path for pattern in _PYTHON for path in package.rglob(pattern)})
    return tuple(WheelFile(path.relative_to(source).as_posix(), path, 0o644) for path in found)


def collect_converters(source: Path) -> tuple[WheelFile, ...]:
    """llama.cpp's converters to GGUF and the modules that they import, in the layout that they expect.

    They run under a Python that has torch and transformers; nothing of the runtime imports them.

    Raises:
        ApplianceError: the sdist has none.
    """
    llama = source / LLAMA
    found = [llama / name for name in CONVERTERS]
    found += sorted(path for pattern in _IMPORTED for path in llama.glob(pattern))
    missing = [path.name for path in found if not path.is_file()]
    if missing or len(found) == len(CONVERTERS):
        raise ApplianceError(
            "runtime.file-missing",
            (missing or ["conversion"])[0],
            expected="the converters of llama.cpp in the sdist",
            found=", ".join(missing) or "no modules for them",
        )
    return tuple(WheelFile(f"{CONVERTER_FOLDER}/{path.relative_to(llama).as_posix()}", path, 0o644) for path in found)


def check_leaks(parts: Iterable[WheelFile], private: Iterable[str]) -> None:
    """Refuse files that name a folder of this machine.

    Args:
        parts: read whole, one after the other.
        private: absolute paths; short ones (`/`) are ignored, because they occur by chance.

    Raises:
        ApplianceError: naming every file.
    """
    needles = [path.rstrip("/").encode() + b"/" for path in private if len(path.rstrip("/")) > 3]
    found = []
    for part in parts:
        data = part.source.read_bytes()
        found += [f"{part.path} names {needle.decode()}" for needle in needles if needle in data]
    if found:
        raise ApplianceError(
            "runtime.path-leaked",
            found[0].split()[0],
            expected="no path of the build machine",
            found="; ".join(found),
        )


def variant_file(name: str) -> str:
    """The library of a CPU variant."""
    return f"libggml-cpu-{name}.so"


def _check_names(elves: dict[str, Elf]) -> None:
    wrong = [
        f"{name}: soname {elf.soname}, rpath {elf.rpath}, runpath {elf.runpath}"
        for name, elf in sorted(elves.items())
        if elf.soname not in (None, name) or elf.rpath != "$ORIGIN" or elf.runpath is not None
    ]
    if wrong:
        raise ApplianceError(
            "runtime.search-path",
            wrong[0].split(":")[0],
            expected="its own name and DT_RPATH $ORIGIN",
            found="; ".join(wrong),
        )
