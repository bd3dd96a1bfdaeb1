"""The folder in which a TUF client keeps what it has accepted, under names without versions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Store:
    """Metadata by role: `root.json`, `timestamp.json`, `snapshot.json`, `targets.json`."""

    folder: Path

    def read(self, role: str) -> bytes | None:
        """What was accepted last."""
        path = self.folder / f"{role}.json"
        return path.read_bytes() if path.is_file() else None

    def root(self) -> bytes:
        """The trusted root; there always is one after `init`."""
        return (self.folder / "root.json").read_bytes()

    def keep(self, role: str, data: bytes) -> None:
        """Replace what was accepted before, whole or not at all."""
        write_whole(self.folder / f"{role}.json", data)

    def forget(self, role: str) -> None:
        """Delete what was accepted."""
        (self.folder / f"{role}.json").unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)
