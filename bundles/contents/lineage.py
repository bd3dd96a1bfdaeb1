"""The lineage of a model: its source, and the steps since (FORMAT 3)."""

from __future__ import annotations

from dataclasses import dataclass

from signing.digest import Digest


@dataclass(frozen=True)
class Lineage:
    """What a model was made from: the source as the recipe names it, its file, size and digest, and the steps since."""

    source: str
    sha256: Digest
    size: int
    steps: tuple[str, ...] = ()
