"""`STICK.json`: which stick of a set this is, and which stick has which blobs (FORMAT 1).

Owns the form of the file. It is a hint for people and for messages: nobody signs it, and it decides nothing. A reader
never refuses a medium because of it.

Rules:
- a set is named by the manifests of its bundles, so every writing of the same bundles gives the same name;
- `placement` has, for each stick, the runs of blob numbers that it holds of each bundle, by the numbers of
  `bundles.stick.ranges`;
- what is absent, too long or of another form is no card.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from bundles.bundle import Bundle
from bundles.contents.paths import check_name
from bundles.oci.layout import STICK_FILE, Layout
from signing.digest import Digest, parse_digest, sha256
from signing.errors import ApplianceError
from signing.strictjson import Json, load_canonical, to_file

MAX_CARD_BYTES = 256 << 10
MAX_STICKS = 1000
_FIELDS = {"bundles", "number", "of", "placement", "set"}
_SET = re.compile(r"[0-9a-f]{16}\Z")
Runs = tuple[tuple[int, int], ...]
"""Rising runs of blob numbers, first and last of each."""


@dataclass(frozen=True)
class StickBundle:
    """A bundle of the set: its name, version and the digest of its manifest, as the card states them."""

    name: str
    version: str
    manifest: Digest


@dataclass(frozen=True)
class StickCard:
    """What a stick states about itself; untrusted.

    Args:
        set: 16 hexadecimal digits that all sticks of the set have.
        number: of this stick, from 1.
        of: how many sticks there are; None where that was not known when this one was written.
        bundles: of the set, in the order of the index.
        placement: for each stick, in the order of their numbers, its runs for each bundle, in the order of `bundles`;
            it may name fewer sticks than there are.
    """

    set: str
    number: int
    of: int | None
    bundles: tuple[StickBundle, ...]
    placement: tuple[tuple[Runs, ...], ...] = ()

    def sticks_with(self, manifest: Digest, number: int) -> tuple[int, ...]:
        """The numbers of the sticks that hold a blob.

        Args:
            manifest: of the bundle.
            number: of the blob in it, from 1.
        """
        at = next((at for at, bundle in enumerate(self.bundles) if bundle.manifest == manifest), None)
        if at is None:
            return ()
        return tuple(
            stick
            for stick, held in enumerate(self.placement, 1)
            if any(first <= number <= last for first, last in held[at])
        )


def name_set(manifests: Iterable[Digest]) -> str:
    """The name of the set of media that hold these bundles: 16 hexadecimal digits."""
    return sha256("\n".join(sorted(manifests)).encode())[:16]


def runs_of(bundle: Bundle, digests: Collection[Digest]) -> Runs:
    """The runs of numbers that some of a bundle's blobs have."""
    runs: list[tuple[int, int]] = []
    for number, chunk in enumerate(bundle.blobs, 1):
        if chunk.sha256 not in digests:
            continue
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return tuple(runs)


def write_card(card: StickCard) -> bytes:
    """Write `STICK.json`; the placement is left out where the file would be longer than a reader takes."""
    value: dict[str, Json] = {
        "set": card.set,
        "number": card.number,
        "of": card.of,
        "bundles": [{"name": one.name, "version": one.version, "manifest": one.manifest} for one in card.bundles],
        "placement": [[[[first, last] for first, last in runs] for runs in stick] for stick in card.placement],
    }
    data = to_file(value)
    return data if len(data) <= MAX_CARD_BYTES else to_file({**value, "placement": []})


def read_card(layout: Layout) -> StickCard | None:
    """Read the card of a medium.

    Args:
        layout: untrusted.

    Returns:
        None where there is none, or it is of another form: a medium without a card is as good as one with it.
    """
    try:
        data = layout.medium.read(STICK_FILE, MAX_CARD_BYTES)
        return None if data is None else _parse(data)
    except (ApplianceError, _OtherForm):
        return None


class _OtherForm(Exception):
    pass


def _parse(data: bytes) -> StickCard:
    value = load_canonical(data, STICK_FILE, MAX_CARD_BYTES)
    if not isinstance(value, dict) or set(value) != _FIELDS:
        raise _OtherForm
    name, bundles, placement = value["set"], value["bundles"], value["placement"]
    number, of = value["number"], value["of"]
    if not isinstance(name, str) or not _SET.match(name) or not isinstance(bundles, list) or not bundles:
        raise _OtherForm
    if not _is_count(number) or not (of is None or (_is_count(of) and number <= of)):
        raise _OtherForm
    if not isinstance(placement, list) or len(placement) > MAX_STICKS:
        raise _OtherForm
    held = tuple(_sticks(stick, len(bundles)) for stick in placement)
    return StickCard(name, number, of, tuple(map(_bundle, bundles)), held)


def _bundle(value: Json) -> StickBundle:
    if not isinstance(value, dict) or set(value) != {"name", "version", "manifest"}:
        raise _OtherForm
    manifest = parse_digest(value["manifest"], STICK_FILE)
    return StickBundle(check_name(value["name"]), check_name(value["version"]), manifest)


def _sticks(value: Json, bundles: int) -> tuple[Runs, ...]:
    if not isinstance(value, list) or len(value) != bundles:
        raise _OtherForm
    return tuple(tuple(_pairs(runs)) for runs in value)


def _pairs(value: Json) -> Sequence[tuple[int, int]]:
    if not isinstance(value, list):
        raise _OtherForm
    pairs: list[tuple[int, int]] = []
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2 or not all(type(one) is int for one in pair):
            raise _OtherForm
        first, last = pair
        if not (pairs[-1][1] if pairs else 0) < first <= last:
            raise _OtherForm
        pairs.append((first, last))
    return pairs


def _is_count(value: Json) -> bool:
    return type(value) is int and 1 <= value <= MAX_STICKS
