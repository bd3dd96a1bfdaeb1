"""The compiler of this machine, and cmake and ninja from their wheels.

Owns how they are found, which versions are accepted, and what is recorded of them. It must never install anything, or
write outside the build folder.

Rules:
- gcc and g++ of one version, 12 or newer (AMX, AVX-VNNI), for x86-64;
- everything that changes the compiled bytes is recorded: compiler, binutils, headers of the C and C++ library, tools,
  zlib.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock

from appliance.builder.runtime.build_types import ToolWheels
from appliance.builder.sources.file import measure
from signing.digest import Digest
from signing.errors import DamagedError, HostUnfitError

MIN_GCC = 12
_SUFFIXES = ("", "-12", "-13", "-14", "-15", "-16")
_HINT = "sudo apt-get install -y gcc g++ binutils"
_asking = Lock()
_PROBE = b"#include <cstddef>\n#include <features.h>\n"


@dataclass(frozen=True, slots=True)
class Compiler:
    """The machine's compiler.

    Args:
        cc: absolute path of gcc.
        cxx: absolute path of g++.
        versions: what is recorded: gcc, binutils, glibc_headers, libstdcxx_headers, target.
    """

    cc: str
    cxx: str
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Tools:
    """Unpacked build tools, as absolute paths."""

    cmake: Path
    ninja: Path


def find_compiler(search_path: str) -> Compiler:
    """Find gcc and g++, and read their versions. Takes about 50 ms.

    Args:
        search_path: folders joined by `:`, as in PATH.

    Raises:
        HostUnfitError: none, too old, for another machine, or without headers or binutils.
    """
    old = ""
    for suffix in _SUFFIXES:
        cc, cxx = (shutil.which(name + suffix, path=search_path) for name in ("gcc", "g++"))
        if cc is None or cxx is None:
            continue
        version = _output(cc, "-dumpfullversion")
        if int(re.match(r"\d*", version)[0] or 0) >= MIN_GCC and version == _output(cxx, "-dumpfullversion"):  # type: ignore[index]
            return Compiler(cc, cxx, _versions(cc, cxx))
        old = old or f"{cc} {version or 'that does not run'}"
    raise HostUnfitError(
        "runtime.compiler-missing",
        "gcc",
        expected=f"gcc and g++ {MIN_GCC} or newer",
        found=old or "none on PATH",
        hint=_HINT,
    )


def known_compiler(search_path: str) -> Compiler:
    """As `find_compiler`, which is asked once in a process for each search path: a build has one compiler."""
    with _asking:
        return _asked(search_path)


@cache
def _asked(search_path: str) -> Compiler:
    return find_compiler(search_path)


def find_ccache(search_path: str) -> str | None:
    """The machine's ccache as an absolute path, or None. It caches the compiler's own output, so it is not recorded.

    Args:
        search_path: folders joined by `:`, as in PATH.
    """
    found = shutil.which("ccache", path=search_path)
    return os.path.abspath(found) if found else None


def record_tools(tools: ToolWheels) -> dict[str, str]:
    """Name, version and digest of the build tools, and the version of the zlib that compresses the wheel."""
    return {"zlib": zlib.ZLIB_RUNTIME_VERSION, **(tools.recorded or record_wheels((tools.cmake, tools.ninja)))}


def pinned_tools(pins: Mapping[str, tuple[str, Digest]]) -> dict[str, str]:
    """What `record_wheels` gives for build tools, from the version and the digest that the lock pins for each."""
    versions = {name: version for name, (version, _) in pins.items()}
    return versions | {f"{name}_sha256": digest for name, (_, digest) in pins.items()}


def check_recorded(tools: ToolWheels) -> None:
    """Compare what is recorded of the build tools with their wheels.

    Raises:
        DamagedError: a wheel has another name or version than the lock states.
    """
    found, stated = record_wheels((tools.cmake, tools.ninja)), tools.recorded
    if stated and found != stated:
        raise DamagedError(
            "runtime.tool-differs",
            "the build tools",
            expected=", ".join(f"{name} {text}" for name, text in stated.items() if found.get(name) != text)
            + ", as the lock states",
            found=", ".join(f"{name} {text}" for name, text in found.items() if stated.get(name) != text),
            hint="write the lock again: appliance lock --upgrade RECIPE",
        )


def record_wheels(wheels: Iterable[Path]) -> dict[str, str]:
    """Name, version and digest of the wheels of build tools."""
    from appliance.builder.wheels.reader import wheel_metadata  # where a lock pins them, no wheel is read here

    record = {}
    for path in wheels:
        name, version, _licence = wheel_metadata(path)
        record[name] = version
        record[f"{name}_sha256"] = measure(path)[0]
    return record


def unpack_tools(tools: ToolWheels, folder: Path) -> Tools:
    """Unpack the programs from their wheels.

    Args:
        tools: verified wheels.
        folder: created; what was there is removed.

    Raises:
        DamagedError: a wheel does not hold what is expected.
    """
    shutil.rmtree(folder, ignore_errors=True)
    unpack_wheel(tools.cmake, r"cmake/data/(?P<path>bin/cmake|share/.+)", folder)
    unpack_wheel(tools.ninja, r"(?:ninja/data/bin|[^/]+\.data/scripts)/(?P<path>ninja)", folder / "bin")
    found = unpacked_tools(folder)
    for program, wheel in ((found.cmake, tools.cmake), (found.ninja, tools.ninja)):
        if not program.is_file():
            raise DamagedError(
                "runtime.tool-missing", wheel.name, expected=program.name, found="no such program inside"
            )
        program.chmod(0o755)
    return found


def unpacked_tools(folder: Path) -> Tools:
    """The programs in a folder that `unpack_tools` has filled."""
    return Tools(folder / "bin" / "cmake", folder / "bin" / "ninja")


def _versions(cc: str, cxx: str) -> dict[str, str]:
    def binary(name: str) -> str:
        return _first_line(_output(_output(cc, f"-print-prog-name={name}"), "--version"))

    # In parallel: each is a short process that mostly waits for the disk.
    with ThreadPoolExecutor(4) as pool:
        probe = pool.submit(_output, cxx, "-x", "c++", "-E", "-dM", "-", given=_PROBE)
        programs = pool.map(binary, ("as", "ld"))
        target, version = pool.map(lambda word: _output(cc, word), ("-dumpmachine", "--version"))
        macros, binutils = probe.result(), list(programs)
    if not target.startswith("x86_64-") or "linux" not in target:
        raise HostUnfitError("runtime.machine-unfit", cc, expected="a compiler for x86-64 Linux", found=target)
    defined = dict(re.findall(r"^#define (__GLIBC__|__GLIBC_MINOR__|__GLIBCXX__) (\d+)$", macros, re.MULTILINE))
    if len(defined) < 3 or not all(binutils):
        missing = "headers of the C and C++ library" if len(defined) < 3 else "the assembler and linker (binutils)"
        raise HostUnfitError("runtime.compiler-missing", cc, expected=missing, found="none", hint=_HINT)
    return {
        "gcc": _first_line(version),
        "binutils": "; ".join(dict.fromkeys(binutils)),
        "glibc_headers": f"{defined['__GLIBC__']}.{defined['__GLIBC_MINOR__']}",
        "libstdcxx_headers": defined["__GLIBCXX__"],
        "target": target,
    }


def _output(*argv: str, given: bytes = b"") -> str:
    # The C locale: some distributions translate the first line of --version.
    environment = {"PATH": f"{Path(argv[0]).parent}:/usr/bin:/bin", "LC_ALL": "C"}
    try:
        done = subprocess.run(argv, input=given, capture_output=True, env=environment, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def unpack_wheel(wheel: Path, pattern: str, folder: Path) -> None:
    """Unpack some files of a wheel.

    Args:
        wheel: verified.
        pattern: of the whole names of these files; its group `path` is the path of each below the folder.
        folder: gets the files.

    Raises:
        DamagedError: it is no wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                match = re.fullmatch(pattern, member.filename)
                if match is None or member.is_dir() or ".." in member.filename.split("/"):
                    continue
                target = folder / match["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as stream, target.open("wb") as out:
                    shutil.copyfileobj(stream, out, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DamagedError("runtime.tool-missing", str(wheel), expected="a wheel", found=str(error)) from None
