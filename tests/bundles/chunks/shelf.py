"""Media for the tests of the copy: a folder with blobs, and a person who plugs in what is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundles.chunks.chunk import Chunk
from bundles.chunks.source import Seed, Seeds
from bundles.contents.contents import File
from signing.digest import Digest, sha256
from signing.errors import DamagedError, NextStickError


@dataclass
class Shelf:
    """Media with blobs in one folder; which of them are plugged in can change."""

    folder: Path
    opened: list[Digest] = field(default_factory=list)
    away: set[Digest] = field(default_factory=set)
    before: Callable[[Chunk], None] = lambda _chunk: None

    def holds(self, chunk: Chunk) -> bool:
        return chunk.sha256 not in self.away and (self.folder / chunk.sha256).exists()

    def open_chunk(self, chunk: Chunk) -> int:
        self.before(chunk)
        if not self.holds(chunk):
            raise DamagedError("blob.missing", chunk.sha256)
        self.opened.append(chunk.sha256)
        return os.open(self.folder / chunk.sha256, os.O_RDONLY)


@dataclass
class Person(Shelf):
    """Somebody who plugs in what is asked for, `plugged` times."""

    asked: list[tuple[Chunk, ...]] = field(default_factory=list)
    plugged: int = 9

    def name_medium(self, _chunk: Chunk) -> str:
        """None of them has a name."""
        return ""

    def wait_for(self, wanted: Sequence[Chunk]) -> None:
        self.asked.append(tuple(wanted))
        if len(self.asked) > self.plugged:
            raise NextStickError("stick.next", "a stick", expected=f"{len(wanted)} chunks", found="none of them")
        self.away.discard(wanted[0].sha256)


def shelf(folder: Path, *datas: bytes, kind: type[Shelf] = Shelf) -> Any:
    """A medium with these blobs."""
    folder.mkdir(exist_ok=True)
    for data in datas:
        (folder / sha256(data)).write_bytes(data)
    return kind(folder)


def file_of(path: str, *parts: bytes) -> File:
    """A file of the bundle, in chunks."""
    whole = b"".join(parts)
    return File(
        path, "model", 0o644, len(whole), sha256(whole), tuple(Chunk(sha256(part), len(part)) for part in parts)
    )


def seed(path: Path, *parts: bytes, data: bytes | None = None) -> Seeds:
    """A file on the host that should hold these parts, one after the other."""
    path.write_bytes(b"".join(parts) if data is None else data)
    starts = [sum(map(len, parts[:number])) for number in range(len(parts))]
    return {sha256(part): (Seed(path, start),) for part, start in zip(parts, starts, strict=True)}
