"""Whether two trust roots belong to one chain (TRUST 6).

Owns the definition: they are one root, or the walk from the older one over signed successors ends at the newer one. A
link may lie anywhere, since nobody can forge it: the people of a root have signed the root after it.
"""

from __future__ import annotations

from collections.abc import Sequence

from signing.chain import ReadMetadata, read_root, walk_roots
from signing.errors import DamagedError, NotTrustedError
from signing.roles import Root


def is_same_chain(one: bytes, other: bytes, sources: Sequence[ReadMetadata] = ()) -> bool:
    """Whether the walk leads from one of two roots to the other.

    Args:
        one, other: bytes of root files; each was chosen by a person, or pinned.
        sources: where the roots between them may lie, as untrusted: this host's store, a medium.

    Raises:
        NotTrustedError: one of the two is not signed by its own threshold.
    """
    first, second = (read_root(one, "named root"), one), (read_root(other, "pinned root"), other)
    older, newer = sorted((first, second), key=lambda pair: pair[0].version)
    if older[0].version == newer[0].version:
        return older[0] == newer[0]
    return any(_leads(older, newer, read) for read in (_joined(sources), *sources))


def _leads(older: tuple[Root, bytes], newer: tuple[Root, bytes], source: ReadMetadata) -> bool:
    last = newer[0].version

    def read(name: str, most: int) -> bytes | None:
        version = int(name.partition(".")[0])
        if version == last:
            return newer[1]
        return source(name, most) if version < last else None

    try:
        return walk_roots(*older, read)[0][-1] == newer[0]
    except (DamagedError, NotTrustedError):
        return False


def _joined(sources: Sequence[ReadMetadata]) -> ReadMetadata:
    def read(name: str, most: int) -> bytes | None:
        return next((data for source in sources if (data := source(name, most)) is not None), None)

    return read
