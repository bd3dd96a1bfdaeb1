"""Sets of sticks as folders, made from folders of bundles without the writer of sticks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from bundles.bundle import Bundle, open_bundles
from bundles.chunks.chunk import Chunk
from bundles.oci.layout import BLOB_FOLDER, INDEX_FILE, METADATA, STICK_FILE, blob_path
from bundles.oci.manifest import index_of
from bundles.stick.card import StickBundle, StickCard, name_set, runs_of, write_card
from bundles.stick.media_set import Waiting
from signing.floors import Floors
from tests.toy import NOW


def deal_blobs(dist: Path, bundle: Bundle, sticks: Sequence[Path], *, cards: bool = True) -> list[Path]:
    """Make sticks that together hold a bundle: each gets the small files, the manifest and the contents, and every
    n-th chunk.

    Args:
        dist: the bundle's folder.
        bundle: verified.
        sticks: folders that do not exist yet.
        cards: whether each has a `STICK.json`.
    """
    chunks = bundle.blobs[2:]
    return deal_as(dist, bundle, sticks, [chunks[at :: len(sticks)] for at in range(len(sticks))], cards=cards)


def deal_as(
    dist: Path, bundle: Bundle, sticks: Sequence[Path], chunks: Sequence[Collection[Chunk]], *, cards: bool = True
) -> list[Path]:
    """Make sticks as `deal_blobs` does, each with the chunks that are given for it: also twice, or on none."""
    held = [{bundle.manifest, bundle.config.sha256, *(chunk.sha256 for chunk in some)} for some in chunks]
    placement = tuple((runs_of(bundle, digests),) for digests in held)
    named = StickBundle(bundle.contents.name, bundle.contents.version, bundle.manifest)
    for number, (stick, digests) in enumerate(zip(sticks, held, strict=True), 1):
        shutil.copytree(dist, stick, ignore=shutil.ignore_patterns("sha256", STICK_FILE))
        (stick / BLOB_FOLDER).mkdir(parents=True)
        for digest in digests:
            shutil.copyfile(dist / blob_path(digest), stick / blob_path(digest))
        if cards:
            card = StickCard(name_set([bundle.manifest]), number, len(sticks), (named,), placement)
            (stick / STICK_FILE).write_bytes(write_card(card))
    return list(sticks)


def both_bundles(first: Path, second: Path, stick: Path, root: bytes) -> Path:
    """Put two bundles of one publisher on one medium.

    Args:
        first: a bundle's folder.
        second: another one's, whose metadata are newer and name both.
        stick: a folder that does not exist yet.
        root: the pinned root.
    """
    shutil.copytree(second, stick)
    shutil.copytree(first, stick, dirs_exist_ok=True, ignore=shutil.ignore_patterns(METADATA, INDEX_FILE, STICK_FILE))
    found = [one for path in (first, second) for one in open_bundles(path, root, Floors(), NOW)]
    found.sort(key=lambda one: one.evidence.target)
    (stick / INDEX_FILE).write_bytes(index_of(*((one.value.manifest, one.value.manifest_size) for one in found)))
    return stick


class StickPerson:
    """Who plugs a stick in, or fills a spool, each time when a reader has waited; stands for the watch of the mounts.

    Args:
        acts: what this person does, one after the other.
    """

    def __init__(self, *acts: Callable[[], object]) -> None:
        self.acts = list(acts)
        self.lines: list[str] = []
        self.points: list[Path] = []

    def waiting(self, *, is_filling: bool = False) -> Waiting:
        """How to wait for this person."""
        return Waiting(self.lines.append, is_filling, self)  # type: ignore[arg-type]

    def wait(self) -> bool:
        """See `MountWatch`."""
        assert self.acts, "it waits, and nobody comes"
        self.acts.pop(0)()
        return True

    def arrived(self) -> tuple[Path, ...]:
        """See `MountWatch`."""
        return tuple(self.points)
