"""The part of the sdist that the build reads.

Owns which files of the sdist are unpacked. The changes to them are in `changes`. It must never run anything of it.

Rules:
- the sdist's `.git` folders are left out: cmake takes a version from git wherever it finds one;
- regular files only, below the sdist's one top folder, nothing absolute and no `..`.
"""

from __future__ import annotations

import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from signing.errors import DamagedError, UsageError

LLAMA = "vendor/llama.cpp"
_COMMIT = f".git/modules/{LLAMA}/HEAD"
_WANTED = (
    "PKG-INFO",
    "LICENSE.md",
    "llama_cpp",
    *(
        f"{LLAMA}/{name}"
        for name in (
            "CMakeLists.txt", "LICENSE", "cmake", "common", "conversion", "convert_hf_to_gguf.py",
            "convert_lora_to_gguf.py", "ggml", "gguf-py/LICENSE", "gguf-py/gguf", "include", "licenses", "scripts",
            "src", "tools", "vendor",
        )
    ),
)  # fmt: skip


def unpack_sdist(sdist: Path, folder: Path, version: str) -> str:
    """Unpack what the build reads, in one pass.

    Args:
        sdist: verified bytes.
        folder: created; what was there is removed.
        version: that its PKG-INFO must have.

    Returns:
        The commit of llama.cpp as the sdist records it, seven characters, or `unknown`.

    Raises:
        DamagedError: it is no sdist of llama-cpp-python.
        UsageError: it has another version.
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


def licence_files(source: Path) -> dict[str, Path]:
    """The licence texts of all compiled sources, by their path in the wheel."""
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
