"""The figure of rebuilding a lost stick from its parity and the two others, against a limit.

All is cold and on one disk. The rebuilt chunks are copied into a file by the copy of an install, and are durable.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from bundles.chunks.chunk import Chunk
from bundles.chunks.copy import copy_files
from bundles.chunks.work_file import CopyJob
from bundles.contents.contents import File
from bundles.oci.layout import BLOB_FOLDER, Layout
from bundles.parity.streams import plan_parity, read_parity, write_parity
from bundles.stick.media_set import MediaSet
from signing.digest import Digest
from tests.bench.copies import GIB, MB, write_blobs
from tests.bench.figure import Figure, Taken, run, take_turns
from tests.bench.material import Material

MIN_MB_A_SECOND = 200
MAX_MEMORY_MB = 200
_STICK_GIB, _ROUNDS = 1, 2


def rebuild(material: Material) -> list[Figure]:
    """Rebuild one of three sticks of 1 GiB each."""
    folder = material.folder / "rebuild"
    sticks = [Layout(folder / f"stick-{number}") for number in range(4)]
    shares = [_fill(stick) for stick in sticks[:3]]
    whole = MediaSet(sticks[:3])
    sticks[3].path.mkdir()
    write_parity(plan_parity(shares), whole.open_chunk, sticks[3])
    shutil.rmtree(sticks[1].path)
    target = folder / "target"

    def ours() -> Taken:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        _let_go(folder)
        return run(sys.executable, "-m", "tests.bench.rebuild", folder, target)

    [taken] = take_turns((ours,), _ROUNDS)
    shutil.rmtree(folder)
    size = _STICK_GIB * GIB
    what = f"rebuild of a lost stick of {_STICK_GIB} GiB, of three, cold"
    return [
        Figure(what, f"{MIN_MB_A_SECOND} MB/s", taken.wall_s, size / MB / MIN_MB_A_SECOND, 1.0),
        Figure(f"{what}: memory", f"{MAX_MEMORY_MB} MB", taken.peak_bytes / MB, MAX_MEMORY_MB, 1.0, "MB", 0),
    ]


def _fill(stick: Layout) -> list[Chunk]:
    place = stick.path / BLOB_FOLDER
    place.mkdir(parents=True)
    return [_chunk(place, name) for name in write_blobs(place, _STICK_GIB * GIB)]


def _chunk(place: Path, name: Digest) -> Chunk:
    return Chunk(name, (place / name).stat().st_size)


def _let_go(folder: Path) -> None:
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main(words: Sequence[str]) -> None:
    """Copy what the lost stick had into one file: `python -m tests.bench.rebuild FOLDER TARGET`."""
    folder, target = map(Path, words)
    layouts = [Layout(folder / f"stick-{number}") for number in (0, 2, 3)]
    streams = read_parity(layouts[-1])
    assert streams is not None
    lost = streams.streams[1]
    file = File("models/lost.gguf", "model", 0o644, sum(chunk.size for chunk in lost), lost[0].sha256, lost)
    copy_files([CopyJob(file, target / "lost.gguf")], MediaSet(layouts))


if __name__ == "__main__":
    main(sys.argv[1:])
