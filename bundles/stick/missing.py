"""The words for what a set of media lacks: which blobs, which stick has them, and what to do next.

Owns the errors of exit code 5 and the lines that a waiting reader shows. `STICK.json` chooses the words; whether
something is missing is decided by the blobs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bundles.bundle import Bundle
from bundles.chunks.chunk import Chunk
from bundles.oci.layout import blob_path
from bundles.report import format_size, shell_word
from bundles.stick.card import StickCard
from bundles.stick.ranges import format_ranges
from signing.errors import DamagedError, NextStickError

_MAX_STICKS_NAMED = 8


def next_stick(missing: Sequence[Chunk], bundles: Sequence[Bundle], cards: Sequence[StickCard]) -> NextStickError:
    """Make the error for blobs that lie on no medium that is here.

    Args:
        missing: at least one blob.
        bundles: verified; those whose blobs they are.
        cards: what the media state about their set, untrusted.

    Returns:
        The error, with the ranges to be read out, and the sticks that should have them.
    """
    digests = {chunk.sha256 for chunk in missing}
    ranges = [(bundle, text) for bundle in bundles if (text := format_ranges(bundle, digests))]
    where = sticks_with(missing, bundles, cards)
    only = f"; or let the sender write just these: stick write --only '{ranges[0][1]}'" if len(ranges) == 1 else ""
    return NextStickError(
        "stick.next",
        "; ".join(f"{bundle.label}: {text}" for bundle, text in ranges) or f"{len(missing)} blobs",
        expected=f"every blob; {len(missing)} more, {format_size(sum(chunk.size for chunk in missing))}",
        found="none of these on the media that are here",
        hint=f"{insert(where)}, and name all sticks that are plugged in, or run it with --wait{only}",
    )


def lost(chunk: Chunk, bundles: Sequence[Bundle]) -> DamagedError:
    """Make the error for a blob that should lie on a medium that is here."""
    files = [file.path for one in bundles for file in one.contents.files if chunk in file.chunks]
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    named = f"{', '.join(files[:3])}{more} ({blob_path(chunk.sha256)})" if files else blob_path(chunk.sha256)
    return DamagedError("blob.missing", named, expected=f"{chunk.size} bytes", found="no file", hint="copy it again")


def damaged_copies(medium: Path, found: Sequence[tuple[Chunk, str]]) -> str:
    """One line about a medium whose damaged copies were passed over.

    Args:
        medium: where it is mounted.
        found: at least one chunk, each with the place that it was taken from.
    """
    blobs = ", ".join(blob_path(chunk.sha256) for chunk, _ in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    sources = ", ".join(sorted({source for _, source in found}))
    return f"{medium} is damaged: {blobs}{more} came from {sources}; write that medium again"


def request(
    wanted: Sequence[Chunk],
    bundles: Sequence[Bundle],
    cards: Sequence[StickCard],
    pulled: Sequence[Path],
    is_filling: bool,
) -> str:
    """What a waiting reader asks a person to do, in one line."""
    to_go = f"{format_size(sum(chunk.size for chunk in wanted))} to go"
    if pulled:
        return f"{pulled[-1]} was pulled out: plug it in and mount it again; {to_go}"
    if is_filling:
        return f"waiting for {len(wanted)} blobs; {to_go}"
    return f"{insert(sticks_with(wanted, bundles, cards))}; {to_go}"


def unplugged(points: Sequence[Path]) -> NextStickError:
    """Make the error for a medium whose device is gone while it is mounted still.

    Args:
        points: the paths of such media.
    """
    first = shell_word(str(points[0]), "FOLDER")
    return NextStickError(
        "stick.unplugged",
        ", ".join(map(str, points)),
        expected="a medium that stays plugged in",
        found="its device is gone: it was pulled out",
        hint=f"take the old mount away (umount -l {first}), plug the stick in and mount it again, then run the same "
        "command: it goes on where it stopped",
    )


def sticks_with(missing: Sequence[Chunk], bundles: Sequence[Bundle], cards: Sequence[StickCard]) -> tuple[int, ...]:
    """The numbers of the sticks that should hold blobs, by what the media state; empty where none states it."""
    digests = {chunk.sha256 for chunk in missing}
    found: set[int] = set()
    for bundle in bundles:
        for number, chunk in enumerate(bundle.blobs, 1):
            if chunk.sha256 in digests:
                found.update(stick for card in cards for stick in card.sticks_with(bundle.manifest, number))
    return tuple(sorted(found))


def insert(sticks: Sequence[int]) -> str:
    """The step to take, as the start of a sentence: `insert stick 2`."""
    if not sticks:
        return "insert the next stick"
    named = ", ".join(map(str, sticks[:_MAX_STICKS_NAMED]))
    more = " and further ones" if len(sticks) > _MAX_STICKS_NAMED else ""
    return f"insert stick {named}{more}" if len(sticks) == 1 else f"insert one of the sticks {named}{more}"
