"""The figure of the install's copy, against `cp` of the same blobs and fsync.

The blobs lie on another file system: an ext4 image, mounted by loop, where this runs as root; else on the same one, and
the row shows it. Caches are cold on both sides, and both write to the same folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bundles.chunks.chunk import MAX_CHUNK_BYTES, Chunk
from bundles.chunks.copy import copy_file
from bundles.contents.contents import File
from signing.digest import Digest, sha256
from tests.bench.figure import Figure, Taken, run, take_turns
from tests.bench.material import Material

MB, GIB = 1_000_000, 1 << 30
_WANTED_GIB, _MEMORY_MB, _ROUNDS = 8, 200, 2
_LIST = "blobs.txt"
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")


def install_copy(material: Material) -> list[Figure]:
    """Copy a model of 8 GiB of distinct bytes from its blobs, cold; less where the disk has no room for it twice."""
    folder = material.folder / "copy"
    folder.mkdir()
    free_gib = (shutil.disk_usage(folder).free >> 30) - 4
    size_gib = max(1, min(_WANTED_GIB, free_gib // 2))
    with other_file_system(folder, size_gib * GIB * 21 // 20) as (source, where):
        names = write_blobs(source, size_gib * GIB)
        blobs = [source / name for name in names]
        target = folder / "target"

        def ours() -> Taken:
            return cold(source, target, lambda: run(sys.executable, "-m", "tests.bench.copies", source, target))

        def theirs() -> Taken:
            words = " ".join(str(path) for path in blobs)
            line = f"cp --reflink=never --sparse=never {words} {target} && sync {target}/*"
            return cold(source, target, lambda: run(shell=line))

        copied, plain = take_turns((ours, theirs), _ROUNDS)
    what, against = f"install copy of {size_gib} GiB, cold, from {where}", "`cp` of the same blobs, and fsync"
    return [
        Figure(what, against, copied.wall_s, plain.wall_s, 1.10),
        Figure(f"{what}: memory", f"{_MEMORY_MB} MB", copied.peak_bytes / MB, _MEMORY_MB, 1.0, "MB", 0),
    ]


def write_blobs(folder: Path, size: int) -> list[Digest]:
    """Write blobs of distinct bytes, `size` bytes in all, and a list of their names in order."""
    names: list[Digest] = []
    for _ in range(size // MAX_CHUNK_BYTES):
        data = os.urandom(MAX_CHUNK_BYTES)
        names.append(sha256(data))
        (folder / names[-1]).write_bytes(data)
    (folder / _LIST).write_text("\n".join(names))
    return names


@contextmanager
def other_file_system(folder: Path, size: int) -> Iterator[tuple[Path, str]]:
    """An ext4 image of `size` bytes, mounted below a folder where this runs as root; else a folder there."""
    image, mount = folder / "medium.img", folder / "medium"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    made = os.geteuid() == 0 and _is_done("mkfs.ext4", "-q", "-m", "0", image)
    mounted = made and _is_done("mount", "-o", "loop", image, mount)
    try:
        yield mount, "another file system" if mounted else "the same file system"
    finally:
        if mounted:
            subprocess.run(("umount", mount), check=True)
        shutil.rmtree(folder)


def _is_done(*command: str | Path) -> bool:
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def cold(source: Path, target: Path, side: Callable[[], Taken]) -> Taken:
    """Run one side with an empty target and cold caches."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    drop_caches(source)
    try:
        return side()
    finally:
        shutil.rmtree(target)


def drop_caches(folder: Path) -> None:
    """Have memory let go of the files of a folder; all of the machine's as root."""
    os.sync()
    try:
        _DROP_CACHES.write_text("3")
    except OSError:  # not root: file by file
        for path in folder.iterdir():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    """Copy one file from blobs: `python -m tests.bench.copies SOURCE TARGET`."""
    source, target = (Path(word) for word in sys.argv[1:])
    names = [Digest(name) for name in (source / _LIST).read_text().split()]
    chunks = tuple(Chunk(name, (source / name).stat().st_size) for name in names)
    file = File("models/big.gguf", "model", 0o644, sum(chunk.size for chunk in chunks), names[0], chunks)
    copy_file(file, lambda chunk: os.open(source / chunk.sha256, os.O_RDONLY | os.O_CLOEXEC), target / "big.gguf")


if __name__ == "__main__":
    main()
