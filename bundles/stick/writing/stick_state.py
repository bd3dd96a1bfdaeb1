"""What lies on a stick before it is written: blobs that count, room, and what no wanted bundle needs.

Owns the look before the first byte is written. It reads names alone, and changes nothing.

Rules:
- a blob or target of another bundle is foreign: it stays, and the stick is refused, or it is removed after a yes;
- only names that the format gives are ever removed; where anything else lies in a covered folder, the stick is refused
  before a byte is written or removed;
- where no bundle lies, a file with a name that would be written is a person's, and is never overwritten.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundles.bundle import Bundle
from bundles.medium_check import check_kinds
from bundles.oci.covered_names import is_metadata_path, refuse_unlisted, unlisted
from bundles.oci.layout import (
    ATTESTATIONS,
    BLOB_FOLDER,
    BLOBS,
    BOOT,
    INDEX_FILE,
    LAYOUT_FILE,
    METADATA,
    PARITY,
    STICK_FILE,
    TARGETS,
    Layout,
    blob_path,
    target_path,
)
from bundles.oci.manifest import MAX_INDEX_BYTES, parse_index
from bundles.stick.missing import unplugged
from bundles.stick.mounts import Mount, mount_of
from bundles.stick.writing.placement import Room, room_of
from signing.digest import Digest
from signing.errors import NotTrustedError, UsageError

_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})\Z")
_TARGET = re.compile(r"targets/bundles/[^/]+/[^/]+/[0-9a-f]{64}\.manifest\.json\Z")
_PARITY_FILE = re.compile(PARITY + r"/(?:PARITY\.json|[0-9]{6}\.xor)\Z")


@dataclass(frozen=True)
class StickState:
    """A stick as it was found.

    Args:
        layout: of the stick.
        held: wanted blobs that lie there; nothing is known about their bytes.
        foreign: paths of blobs and targets that no wanted bundle needs, and of the parity of an earlier set.
        foreign_bytes: what they take.
        unlisted: files in the covered folders that neither a wanted bundle nor an older writing of it puts there; some
            of them may be foreign.
        others: what shows that it is a stick of another bundle, for people; empty for an empty stick and one of the
            wanted bundles.
        device: number of the device that the folder lay on.
        mount: where it was mounted from; None where the kernel does not state it.
    """

    layout: Layout
    held: frozenset[Digest]
    foreign: tuple[str, ...]
    foreign_bytes: int
    unlisted: tuple[str, ...]
    others: str
    device: int
    mount: Mount | None

    @property
    def is_gone(self) -> bool:
        """Whether the stick was pulled out, or another one lies in its place."""
        if self.mount is not None and self.mount.is_gone:
            return True
        try:
            return self.layout.path.stat().st_dev != self.device
        except OSError:  # a desktop removes the folder, too
            return True

    def require_there(self, cause: BaseException | None = None) -> None:
        """Go on only on the stick that was looked at: what lies below its mount belongs to this machine.

        Raises:
            NextStickError: it is gone (code `stick.unplugged`), because of `cause` or not.
        """
        if self.is_gone:
            raise unplugged((self.layout.path,)) from cause

    def refuse_unlisted(self, removed: Collection[str] = ()) -> None:
        """Refuse what a reader of the stick would refuse, before a byte is written.

        Args:
            removed: paths that are removed before.

        Raises:
            NotTrustedError: code `layout.unlisted`.
        """
        refuse_unlisted([path for path in self.unlisted if path not in removed])

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
    parity = [path for path in layout.medium.walk(PARITY) if _PARITY_FILE.match(path)]
    foreign = (*removable(strange), *parity)
    held = {match[1] for path in there if path in blobs and (match := _BLOB.match(path))}
    size = sum((layout.path / path).lstat().st_size for path in foreign)
    index = layout.medium.read(INDEX_FILE, MAX_INDEX_BYTES)
    metadata = {path for path in layout.medium.walk(METADATA) if is_metadata_path(path)}
    beside = tuple(path for path in unlisted(layout, blobs | targets | metadata) if not path.endswith("/"))
    others = _other_index(index, bundles) if index is not None else f"other files: {strange[0]}" if strange else ""
    mount = mount_of(layout.path)
    device = layout.path.stat().st_dev
    return StickState(layout, frozenset(map(Digest, held)), foreign, size, beside, others, device, mount)


def too_small(
    state: StickState, expected: str = "room for what every stick of a set holds: signatures, names and lists"
) -> UsageError:
    """The error for a stick without room for something that it must hold."""
    free, _ = state.layout.medium.free_bytes()
    return UsageError(
        "stick.too-small",
        str(state.layout.path),
        expected=expected,
        found=f"{free} bytes free",
        hint="use a larger stick, or make room on this one",
    )


def takes_nothing(state: StickState) -> UsageError:
    """The error for a further stick on which no blob fits that has yet to be written."""
    return UsageError(
        "stick.takes-nothing",
        str(state.layout.path),
        expected="a further stick with room",
        found="no room for any blob that is left; perhaps this stick was written already",
        hint="use another stick",
    )


def refuse_source(path: Path, sources: Sequence[Path]) -> None:
    """Refuse to write into a bundle that is to be written.

    Raises:
        UsageError: code `stick.is-source`.
    """
    real = Path(os.path.realpath(path))
    for source in sources:
        if Path(os.path.realpath(source)) in (real, *real.parents):
            raise UsageError(
                "stick.is-source",
                str(path),
                expected="the folder of a stick",
                found=f"the bundle that is to be written, {source}",
                hint="give the folder where the stick is mounted",
            )


def refuse_twice(states: Sequence[StickState]) -> None:
    """Refuse sticks of which one is named twice.

    Raises:
        UsageError: code `stick.twice`.
    """
    for at, state in enumerate(states):
        for earlier in states[:at]:
            if os.path.samefile(earlier.layout.path, state.layout.path):
                raise UsageError(
                    "stick.twice",
                    str(state.layout.path),
                    expected="another stick at each path",
                    found="the same folder as before",
                    hint="name each stick once",
                )


def refuse_own_files(layout: Layout, small: Mapping[str, bytes]) -> None:
    """Refuse to overwrite what a person keeps on a medium where no bundle lies.

    Args:
        layout: of the stick, untrusted.
        small: what is to be written beside the blobs, by path.

    Raises:
        UsageError: a file lies where one would be written, or in one of the folders (code `stick.other-files`).
    """
    # Blobs come first when a stick is written: without them, no earlier writing left these files.
    if any(os.path.lexists(layout.path / name) for name in (LAYOUT_FILE, BLOB_FOLDER)):
        return
    found = sorted(set(_own_files(layout, small)))
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UsageError(
            "stick.other-files",
            str(layout.path),
            expected="a stick on which these names are free, or a stick with a bundle",
            found=f"files of somebody: {', '.join(found[:3])}{more}",
            hint="move them to another place, or use an empty stick; nothing was changed",
        )


def _own_files(layout: Layout, small: Mapping[str, bytes]) -> Iterator[str]:
    for folder in (BOOT, METADATA, TARGETS, ATTESTATIONS):
        yield from (path for path in layout.medium.walk(folder) if path not in small)
    for path, data in {STICK_FILE: b"", **small}.items():
        there = layout.medium.read(path, len(data))
        if there is not None and there != data:
            yield path


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
