"""The parts of `contents.json` that came with format 2, each of them optional (FORMAT 3.4).

Owns their types; `bundles.contents.format_2_json` reads them. It must never decide who may state what.

Rules:
- a bundle that uses none of them is written as format 1, so that every program reads it;
- everything here is frozen, and was checked when it was read.
"""

from __future__ import annotations

from dataclasses import dataclass

from bundles.contents.lineage import Lineage
from signing.digest import Digest

SITE_KINDS = ("adapter", "advisory", "doc", "golden-set")
"""The kinds of file that a publisher can let a site add under a trust root of its own."""

MAX_RANK = 256


@dataclass(frozen=True)
class TemplateAcceptance:
    """Who accepted a chat template that the linter refuses by judgement.

    Args:
        by: the person, as the recipe names them.
        date: the day, `YYYY-MM-DD`.
        sha256: of the accepted text's UTF-8 bytes: of this model's template, or of another one in its header.
    """

    by: str
    date: str
    sha256: Digest


@dataclass(frozen=True)
class StateFormats:
    """Which formats of the stored state of a host the program of this bundle reads, and which one it writes.

    Args:
        reads: the numbers, rising, each at least 1; `writes` is one of them.
        writes: the number that a host has after this bundle was installed.
    """

    reads: tuple[int, ...]
    writes: int


@dataclass(frozen=True)
class SitePermission:
    """What a site may add under a trust root of its own: kinds of file, of `SITE_KINDS`, sorted."""

    kinds: tuple[str, ...]


@dataclass(frozen=True)
class AdapterBase:
    """The model that an adapter was trained on: sha256 of its file, and of its tensor table (FORMAT 5)."""

    sha256: Digest
    tensors: Digest


@dataclass(frozen=True)
class AdapterLineage:
    """What an adapter was made from.

    Args:
        dataset: sha256 of the dataset's statement; None where it was not trained here.
        parent: sha256 of the adapter that training began with; None for none.
        source: the file that it was converted from, as for a model; None where it was trained here.
    """

    dataset: Digest | None
    parent: Digest | None
    source: Lineage | None = None


@dataclass(frozen=True)
class Adapter:
    """One LoRA adapter of the bundle.

    Args:
        name: users ask for `<model>@<name>`.
        path: its file in `files`, of kind `adapter`.
        base: the only model that it may be applied to; it may be in another bundle.
        rank: of its matrices, 1 to 256.
        alpha: `adapter.lora.alpha` of its header, as a decimal number without an exponent.
        tensors: sha256 of its tensor table (FORMAT 5).
        labels: who may see what was made from its data, sorted; a key needs them all.
        licence: SPDX identifier.
        lineage: what it was made from.
    """

    name: str
    path: str
    base: AdapterBase
    rank: int
    alpha: str
    tensors: Digest
    labels: tuple[str, ...]
    licence: str
    lineage: AdapterLineage
