"""The sdist's sources, as far as the build reads them.

Owns which files of the sdist are unpacked, and the one change that is made to them. It must never run anything of it.

Rules:
- the sdist's `.git` folders stay outside: cmake asks git for a version wherever it finds one;
- regular files only, below the sdist's one top folder, nothing absolute and no `..`;
- the change: CPU variants that nobody asked for are struck out of ggml's list, because ggml waits for all it names.
"""

from __future__ import annotations

import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from appliance.build.runtime.variants import VARIANTS
from signing.errors import ApplianceError, DamagedError, UsageError

LLAMA = "vendor/llama.cpp"
VARIANT_LIST = f"{LLAMA}/ggml/src/CMakeLists.txt"
_COMMIT = f".git/modules/{LLAMA}/HEAD"
_WANTED = (
    "PKG-INFO",
    "LICENSE.md",
    "llama_cpp",
    *(
        f"{LLAMA}/{name}"
        for name in (
            "CMakeLists.txt", "LICENSE", "cmake", "common", "ggml", "include", "licenses", "scripts", "src", "tools",
            "vendor",
        )
    ),
)  # fmt: skip
_X86 = re.compile(r'STREQUAL "x86"\)\n(?P<list>\s+ggml_add_cpu_backend_variant\(x64\).*?)\n\s*elseif', re.DOTALL)
_VARIANT = re.compile(
    r"^[ \t]*ggml_add_cpu_backend_variant\((?P<name>\w+)(?P<features>[\w \t]*)\)[^\n]*\n", re.MULTILINE
)


def unpack_sdist(sdist: Path, folder: Path, version: str) -> str:
    """Unpack what the build reads, in one pass.

    Args:
        sdist: verified bytes.
        folder: made anew; what was there is removed.
        version: what its PKG-INFO must say.

    Returns:
        The commit of llama.cpp as the sdist records it, seven characters, or `unknown`.

    Raises:
        DamagedError: it is no such sdist.
        UsageError: it is another version.
    """
    shutil.rmtree(folder, ignore_errors=True)
    commit = "unknown"
    try:
        with tarfile.open(sdist, "r|gz") as archive:
            for path, stream in _files(archive, sdist.name):
                if path == _COMMIT:
                    commit = stream.read(64).decode("ascii", "replace").strip()
                elif _is_wanted(path):
                    target = folder / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("wb") as out:
                        shutil.copyfileobj(stream, out, 1 << 20)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DamagedError("runtime.sdist-unreadable", str(sdist), expected="a .tar.gz", found=str(error)) from None
    _check_version(folder / "PKG-INFO", version, sdist)
    return commit[:7] if re.fullmatch(r"[0-9a-f]{40}", commit) else "unknown"


def keep_variants(source: Path, chosen: tuple[str, ...]) -> None:
    """Strike the variants that are not `chosen` out of ggml's list.

    Raises:
        ApplianceError: the list is not the one that `variants.VARIANTS` describes.
    """
    path = source / VARIANT_LIST
    text = path.read_text("utf-8")
    block = _X86.search(text)
    found = {}
    if block:
        found = {match["name"]: set(match["features"].split()) for match in _VARIANT.finditer(block["list"] + "\n")}
    expected = {name: set(features) for name, features in VARIANTS.items()}
    if block is None or found != expected:
        differing = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise ApplianceError(
            "runtime.variants-differ",
            VARIANT_LIST,
            expected="the CPU variants that this version of the appliance knows",
            found=f"differences in {', '.join(differing)}",
            hint="use the llama-cpp-python version of the shipped recipes, or a newer appliance",
        )
    kept = _VARIANT.sub(lambda match: match[0] if match["name"] in chosen else "", block["list"] + "\n")
    start, end = block.span("list")
    path.write_text(text[:start] + kept.rstrip("\n") + text[end:], "utf-8")


def licence_files(source: Path) -> dict[str, Path]:
    """The licence texts of what is compiled in, by the path that they get in the wheel."""
    found = {"LICENSE.md": source / "LICENSE.md"}
    for path in sorted((source / LLAMA).rglob("LICENSE*")):
        relative = path.relative_to(source).as_posix()
        if path.is_file() and not relative.startswith(f"{LLAMA}/tools/"):
            found[relative] = path
    return found


def _files(archive: tarfile.TarFile, name: str) -> Iterator[tuple[str, IO[bytes]]]:
    for member in archive:
        if member.isdir():
            continue
        parts = PurePosixPath(member.name).parts
        path = "/".join(parts[1:])
        if not (_is_wanted(path) or path == _COMMIT):
            continue
        stream = archive.extractfile(member) if member.isreg() else None
        if stream is None or member.name.startswith("/") or ".." in parts:
            raise DamagedError("runtime.sdist-unreadable", name, expected="regular files", found=member.name[:200])
        with stream:
            yield path, stream


def _is_wanted(path: str) -> bool:
    return any(path == wanted or path.startswith(f"{wanted}/") for wanted in _WANTED)


def _check_version(pkg_info: Path, version: str, sdist: Path) -> None:
    if not pkg_info.is_file():
        raise DamagedError("runtime.sdist-unreadable", str(sdist), expected="PKG-INFO", found="no such file inside")
    match = re.search(r"^Version: (\S+)$", pkg_info.read_text("utf-8", "replace"), re.MULTILINE)
    found = match[1] if match else "no version"
    if found != version:
        raise UsageError("runtime.version-differs", sdist.name, expected=version, found=found)
