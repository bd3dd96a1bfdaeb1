"""The lineage of a model: its source, and the steps since (FORMAT 3)."""

from __future__ import annotations

from dataclasses import dataclass

from bundles.contents.json_object import JsonObject
from signing.digest import Digest


@dataclass(frozen=True)
class Lineage:
    """What a model was made from: the source as the recipe names it, its file, size and digest, and the steps since."""

    source: str
    sha256: Digest
    size: int
    steps: tuple[str, ...] = ()


def read_lineage(value: JsonObject) -> Lineage:
    """The source of a model or of an adapter, and the steps since.

    Raises:
        NotTrustedError: another field or type.
    """
    value.only({"source", "sha256", "size", "steps"})
    return Lineage(
        source=value.text("source"),
        sha256=value.digest("sha256"),
        size=value.integer("size"),
        steps=value.texts("steps"),
    )
