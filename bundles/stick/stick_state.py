"""What lies on a stick before it is written: blobs that count, room, and what no wanted bundle needs.

Owns the look before the first byte is written. It reads names alone, and changes nothing.

Rules:
- a blob or target of another bundle is foreign: it stays, and the stick is refused, or it is removed after a yes;
- only names that the format gives are ever removed; whatever else lies in a covered folder is a refusal later.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bundles.bundle import Bundle
from bundles.medium_check import check_kinds
from bundles.oci.layout import BLOBS, INDEX_FILE, TARGETS, Layout, blob_path, target_path
from bundles.oci.manifest import MAX_INDEX_BYTES, parse_index
from bundles.stick.mounts import Mount, mount_of
from bundles.stick.placement import Room, room_of
from signing.digest import Digest
from signing.errors import NotTrustedError, UsageError

_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})\Z")
_TARGET = re.compile(r"targets/bundles/[^/]+/[^/]+/[0-9a-f]{64}\.manifest\.json\Z")


@dataclass(frozen=True)
class StickState:
    """A stick as it was found.

    Args:
        layout: of the stick.
        held: wanted blobs that lie there; nothing is known about their bytes.
        foreign: paths of blobs and targets that no wanted bundle needs.
        foreign_bytes: what they take.
        others: what shows that it is a stick of another bundle, for people; empty for an empty stick and one of the
            wanted bundles. What lies on such a stick beside them is refused at the end.
        device: number of the device that the folder lay on.
        mount: where it was mounted from; None where the kernel does not state it.
    """

    layout: Layout
    held: frozenset[Digest]
    foreign: tuple[str, ...]
    foreign_bytes: int
    others: str
    device: int
    mount: Mount | None

    @property
    def is_gone(self) -> bool:
        """Whether the stick was pulled out, or another one lies in its place."""
        if self.mount is not None and self.mount.is_gone:
            return True
        path = self.layout.path
        return path.exists() and path.stat().st_dev != self.device

    def room(self, *, replaces: bool) -> Room:
        """The room of the stick, with that of what is replaced."""
        free_bytes, block_bytes = self.layout.medium.free_bytes()
        free_bytes += self.foreign_bytes if replaces else 0
        mount = mount_of(self.layout.path)
        return room_of(mount.type if mount else "", free_bytes, block_bytes, self.held)


def look_at(layout: Layout, bundles: Sequence[Bundle]) -> StickState:
    """Look at what lies on a stick.

    Args:
        layout: of the stick, untrusted.
        bundles: verified; those that are to be written.

    Raises:
        NotTrustedError: a link or device lies in the place of a file.
    """
    check_kinds(layout)
    blobs = {blob_path(chunk.sha256) for bundle in bundles for chunk in bundle.blobs}
    targets = {target_path(one.contents.name, one.contents.version, one.manifest) for one in bundles}
    there = [*layout.medium.walk(BLOBS), *layout.medium.walk(TARGETS)]
    strange = [path for path in there if path not in blobs and path not in targets]
    foreign = removable(strange)
    held = {match[1] for path in there if path in blobs and (match := _BLOB.match(path))}
    size = sum((layout.path / path).lstat().st_size for path in foreign)
    index = layout.medium.read(INDEX_FILE, MAX_INDEX_BYTES)
    others = _other_index(index, bundles) if index is not None else f"other files: {strange[0]}" if strange else ""
    mount = mount_of(layout.path)
    device = layout.path.stat().st_dev
    return StickState(layout, frozenset(map(Digest, held)), foreign, size, others, device, mount)


def removable(paths: Sequence[str]) -> tuple[str, ...]:
    """Those of some paths that the format gives to blobs and targets; whatever else lies there is never removed."""
    return tuple(path for path in paths if _BLOB.match(path) or _TARGET.match(path))


def other_bundle(state: StickState, bundles: Sequence[Bundle]) -> UsageError:
    """The error for a stick that holds something of another bundle."""
    labels = ", ".join(f"{bundle.label} (manifest {bundle.manifest[:12]})" for bundle in bundles)
    return UsageError(
        "stick.other-bundle",
        str(state.layout.path),
        expected=f"an empty folder, or a stick of {labels}",
        found=state.others,
        hint="use an empty stick; or name the other bundle, too (--also); or remove what is old (--replace)",
    )


def _other_index(index: bytes, bundles: Sequence[Bundle]) -> str:
    try:
        named = parse_index(index)
    except NotTrustedError:
        return ""  # a damaged index is written anew
    ours = {bundle.manifest for bundle in bundles}
    other = next((one for one in named if one.sha256 not in ours), None)
    return f"a stick of manifest {other.sha256[:12]}" if other else ""
