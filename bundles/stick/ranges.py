"""Names blobs of a bundle by short numbers with a check word, to be read out on the telephone.

Owns the numbering and the text in both directions: the missing blobs of a bundle are `223,448,586 b318`, and
`stick write --only` takes that text. It chooses what is carried and never what is trusted.

Rules:
- the blobs of a bundle have the numbers 1 to n in the order of `Bundle.blobs`: 1 is the manifest, 2 `contents.json`;
- numbers rise, and a run is `a-b`; the last part is the check word, 4 hexadecimal digits over the manifest's digest and
  the numbers: a wrong number and another bundle are noticed;
- a reader takes what a person types: spaces between parts or in place of commas, capital letters, any order, and the
  dashes that mail programs put in place of a hyphen.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from bundles.bundle import Bundle
from bundles.chunks.chunk import Chunk
from signing.digest import Digest, sha256
from signing.errors import UsageError

MAX_RANGES_CHARACTERS = 64 << 10
CHECK_WORD_CHARACTERS = 4
_FORM = re.compile(r"(?P<numbers>[0-9]{1,7}[0-9,\s-]*)[,\s](?P<word>[0-9a-fA-F]{4})\Z", re.ASCII)
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-")
_ITEM = re.compile(r"(?P<first>[1-9][0-9]{0,6})(?:-(?P<last>[1-9][0-9]{0,6}))?\Z", re.ASCII)


def format_ranges(bundle: Bundle, digests: Collection[Digest]) -> str:
    """Write a set of blobs as ranges with a check word.

    Args:
        bundle: verified.
        digests: of blobs of this bundle; others are left out.

    Returns:
        Such as `3,7-9 b318`; empty where none of them is a blob of the bundle.
    """
    numbers = [number for number, chunk in enumerate(bundle.blobs, 1) if chunk.sha256 in digests]
    return f"{format_numbers(numbers)} {check_word(bundle.manifest, numbers)}" if numbers else ""


def parse_ranges(text: str, bundle: Bundle) -> tuple[Chunk, ...]:
    """Read what `format_ranges` wrote for the same bundle, as a person types it.

    Args:
        text: untrusted; spaces and capital letters do not matter, nor does the order of the numbers.
        bundle: verified; the one that the text was written for.

    Returns:
        The blobs, in the order of the bundle.

    Raises:
        UsageError: not of this form (code `ranges.form`), a number that the bundle does not have (`ranges.number`), or
            another check word: a number is wrong, or the text is for another bundle (`ranges.check-word`).
    """
    blobs = bundle.blobs
    match = _FORM.match(text.translate(_DASHES).strip()) if len(text) <= MAX_RANGES_CHARACTERS else None
    if match is None:
        raise _no_ranges(text)
    numbers = sorted(set(_numbers(match["numbers"], len(blobs), text)))
    word = match["word"].lower()
    if word != check_word(bundle.manifest, numbers):
        raise UsageError(
            "ranges.check-word",
            text.strip()[:80],
            expected=f"numbers and a check word that belong together, for {bundle.label} {bundle.manifest[:12]}",
            found=f"the check word {word} does not fit",
            hint="compare each number and the word with what the other side shows; then compare the manifest's digest:"
            " both sides must name the same bundle",
        )
    return tuple(blobs[number - 1] for number in numbers)


def find_ranges(text: str, bundles: Sequence[Bundle]) -> tuple[Bundle, tuple[Chunk, ...]]:
    """Read ranges where several bundles come into question: the check word decides for which one they are.

    Args:
        text: as for `parse_ranges`.
        bundles: verified; at least one.

    Returns:
        The bundle, and its blobs.

    Raises:
        UsageError: the text fits none of them; the error is that of the last one.
    """
    for bundle in bundles[:-1]:
        try:
            return bundle, parse_ranges(text, bundle)
        except UsageError:
            continue
    return bundles[-1], parse_ranges(text, bundles[-1])


def format_numbers(numbers: Iterable[int]) -> str:
    """Write numbers as rising ranges: `1-3,7`."""
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in _runs(sorted(set(numbers))))


def check_word(manifest: Digest, numbers: Sequence[int]) -> str:
    """The check word of a set of numbers of one bundle.

    Args:
        manifest: digest of the bundle's manifest.
        numbers: rising, each once.
    """
    return sha256(f"{manifest} {format_numbers(numbers)}".encode())[:CHECK_WORD_CHARACTERS]


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    first = last = 0
    for number in numbers:
        if last and number == last + 1:
            last = number
            continue
        if last:
            yield first, last
        first = last = number
    if last:
        yield first, last


def _numbers(text: str, count: int, whole: str) -> Iterator[int]:
    for item in re.split(r"[,\s]+", re.sub(r"\s*([,-])\s*", r"\1", text.strip(" \t\r\n,"))):
        match = _ITEM.match(item)
        if match is None:
            raise _no_ranges(whole)
        first, last = int(match["first"]), int(match["last"] or match["first"])
        if not first <= last <= count:
            raise UsageError(
                "ranges.number",
                item,
                expected=f"numbers from 1 to {count}, the smaller one first",
                found=item,
                hint="compare the numbers with what the other side shows, and that both name the same bundle",
            )
        yield from range(first, last + 1)


def _no_ranges(text: str) -> UsageError:
    return UsageError(
        "ranges.form",
        text.strip()[:80],
        expected="numbers and ranges with commas between, a space, then a check word of 4 characters: 223,448-450 b318",
        found="something else",
        hint="type what the other side shows as missing, with its last word, in quotes",
    )
