"""The parts of a split GGUF: whether a list of files is such a set, and whether it is whole.

Owns the check of the set, by the keys that `llama-gguf-split` writes. It must never join parts.

Rules:
- a list whose first file alone begins like a GGUF was cut by its bytes: it is no set, and is concatenated;
- a set has every part once, in order, and all tensors that its first part counts.

Source: llama.cpp, `tools/gguf-split`: the keys `split.no`, `split.count` and `split.tensors.count`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bundles.gguf.header import GgufHeader, read_header
from bundles.gguf.kind import not_served
from signing.digest import Digest, sha256

_ALL_PARTS = "name all parts of one split in their order: source: [PART 1, PART 2, …]"


def is_split_set(model: str, names: Sequence[str], parts: Sequence[Path]) -> bool:
    """Whether files are the parts of a split GGUF.

    Args:
        model: its name in the recipe.
        names: of the files, for errors.
        parts: verified files, in the order of the recipe.

    Returns:
        False where they are to be concatenated.

    Raises:
        UsageError: they are several GGUF files, and no whole set in its order.
        NotTrustedError: a part is a GGUF that our parser refuses.
    """
    if not any(_begins_like_gguf(path) for path in parts[1:]):
        return False
    headers = [_read_part(path, name) for path, name in zip(parts, names, strict=True)]
    subject = f"model {model}"
    for at, (header, name) in enumerate(zip(headers, names, strict=True)):
        count, number = header.number("split.count"), header.number("split.no")
        if count < 2:
            raise not_served(
                subject, f"a GGUF of its own among the parts: {name}", "name one file, or the parts of one"
            )
        if count != len(parts):
            raise not_served(subject, f"{len(parts)} files of a split GGUF of {count} parts", _ALL_PARTS)
        if number != at:
            raise not_served(subject, f"part {number + 1} of {count} in the place of part {at + 1}: {name}", _ALL_PARTS)
    stated, found = headers[0].number("split.tensors.count"), sum(len(header.tensors) for header in headers)
    if stated != found:
        raise not_served(subject, f"{found} tensors in all parts, where the first counts {stated}", _ALL_PARTS)
    return True


def parts_argument(parts: Sequence[tuple[str, Digest]]) -> str:
    """All parts in one word, for the lock and the lineage: the digest of a line `<sha256>  <name>` for each, in order.

    Args:
        parts: name and digest of each.
    """
    listed = "".join(f"{digest}  {name}\n" for name, digest in parts)
    return f"parts=sha256:{sha256(listed.encode())}"


def read_set(parts: Sequence[Path], subject: str) -> GgufHeader:
    """The header of the whole model that a set is merged to: the keys of the first part, the tensors of all.

    Args:
        parts: of a set that `is_split_set` accepted.
        subject: for errors.

    Raises:
        NotTrustedError: a part is a GGUF that our parser refuses.
    """
    first, *others = (_read_part(path, subject) for path in parts)
    values = {name: value for name, value in first.values.items() if not name.startswith("split.")}
    return replace(first, values=values, tensors=(*first.tensors, *(one for part in others for one in part.tensors)))


def _begins_like_gguf(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"GGUF"


def _read_part(path: Path, name: str) -> GgufHeader:
    with path.open("rb") as stream:
        return read_header(stream, path.stat().st_size, name, is_part=True)
