"""The figures of writing a stick and of reading it back, against `cp` with `syncfs`, and `cat`.

The stick is an ext4 image, mounted by loop, where this runs as root; else a folder on the same file system, and the row
shows it. It stands for a stick: a real one is slower, so the same work is a smaller part of the time. Caches are cold.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from bundles.chunks.chunk import Chunk
from bundles.oci.layout import BLOB_FOLDER, Layout, blob_path
from bundles.progress import ignore
from bundles.stick.writing.blob_batches import write_blobs
from bundles.stick.writing.read_back import make_durable, read_back
from signing.digest import Digest
from tests.bench import copies
from tests.bench.copies import GIB, MB, cold, drop_caches, other_file_system
from tests.bench.figure import Figure, Taken, run, take_turns
from tests.bench.material import Material

_WANTED_GIB, _MEMORY_MB, _ROUNDS = 8, 200, 2
_OWN_BYTES = GIB // 4
"""What the file system takes for itself, such as its journal."""
_REACH = 1 / 0.9
"""Nine tenths of a rate is this much more time."""


def stick_write(material: Material) -> list[Figure]:
    """Write 8 GiB of distinct blobs to a stick, and read them back; less where the disk has no room for them twice."""
    folder, source = material.folder / "stick", material.folder / "source"
    blobs = source / BLOB_FOLDER
    folder.mkdir()
    blobs.mkdir(parents=True)
    free_gib = (shutil.disk_usage(folder).free >> 30) - 4
    size_gib = max(1, min(_WANTED_GIB, free_gib // 2))
    names = copies.write_blobs(blobs, size_gib * GIB)
    words = " ".join(str(blobs / name) for name in names)
    with other_file_system(folder, size_gib * GIB * 21 // 20 + _OWN_BYTES) as (mount, where):
        stick = mount / "stick"

        def ours() -> Taken:
            return cold(blobs, stick, lambda: run(sys.executable, "-m", "tests.bench.sticks", "write", source, stick))

        def theirs() -> Taken:
            line = f"cp --reflink=never --sparse=never {words} {stick} && sync -f {stick}"
            return cold(blobs, stick, lambda: run(shell=line))

        def read() -> Taken:
            drop_caches(kept)
            return run(sys.executable, "-m", "tests.bench.sticks", "read", stick)

        def cat() -> Taken:
            drop_caches(kept)
            return run(shell=f"cat {kept}/* > {os.devnull}")

        written, plain = take_turns((ours, theirs), _ROUNDS)
        kept = stick / BLOB_FOLDER
        stick.mkdir()
        run(sys.executable, "-m", "tests.bench.sticks", "write", source, stick)
        again, cats = take_turns((read, cat), _ROUNDS)
    shutil.rmtree(source)
    what = f"of {size_gib} GiB, cold, to {where}"
    peak = max(written.peak_bytes, again.peak_bytes) / MB
    return [
        Figure(f"stick write {what}", "`cp` of the same blobs, and `syncfs`", written.wall_s, plain.wall_s, _REACH),
        Figure(f"read-back {what}", "`cat` of the same blobs", again.wall_s, cats.wall_s, _REACH),
        Figure(f"stick write {what}: memory", f"{_MEMORY_MB} MB", peak, _MEMORY_MB, 1.0, "MB", 0),
    ]


def main(words: Sequence[str]) -> None:
    """`python -m tests.bench.sticks write SOURCE STICK`, or `read STICK`."""
    origin = Layout(Path(words[1]))
    chunks = [Chunk(Digest(name), os.stat(origin.path / BLOB_FOLDER / name).st_size) for name in _names(origin)]
    if words[0] == "write":
        stick = Layout(Path(words[2]))
        write_blobs(origin, stick, chunks, ignore)
        make_durable(stick.path)
        return
    back = read_back(origin, {blob_path(chunk.sha256): chunk for chunk in chunks}, ignore)
    if back.differing or not back.is_proven:
        raise SystemExit(f"bench: {len(back.differing)} blobs differ; read from the device: {back.is_proven}")


def _names(layout: Layout) -> list[str]:
    return [name for name in layout.medium.list(BLOB_FOLDER) if len(name) == 64]


if __name__ == "__main__":
    main(sys.argv[1:])
