"""The walk from a pinned root to the newest targets file.

Owns the order of TUF's client workflow. It reads through a callback and writes nothing; persisting what it proved
(5.3.8, 5.4.5, 5.5.7, 5.6.6) is the caller's, before the first byte of content is written.

Rules (numbers of the TUF specification 1.0.34, section 5):
- 5.2: the root is given; copies of it and of roots before it decide nothing, but a forged one is a refusal;
- 5.3.3 to 5.3.9: root N+1 reaches the thresholds of root N and of itself; versions rise by one; at most 1 024 steps;
- 5.3.11: a root that replaces keys of timestamp or snapshot resets those two version floors, once, and nothing else;
- 5.4, 5.5, 5.6: timestamp, snapshot and targets reach their thresholds and are not below the floors; snapshot and
  targets are the very version, length and sha256 that the file before them names (5.5.2, 5.6.2);
- 5.1, 5.3.10, 5.4.4, 5.5.6, 5.6.5: expiry is reported, not judged by a clock; time is what people signed (T4, T27);
- of several sources the newest valid one wins; one that is older or broken is passed over and reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Callable, Optional

from signing import roles as ours
from signing.digest import Digest, sha256
from signing.errors import NotTrustedError
from signing.floors import Floors
from signing.keys import PublicKey
from signing.roles import MAX_BYTES, Envelope, FileMeta, Root, Rules, Targets

MAX_ROTATIONS = 1024
ReadMetadata = Callable[[str, int], Optional[bytes]]
"""Gives the bytes of a metadata file by name, at most so many and one more, or None where there is none."""


@dataclass(frozen=True)
class Walked:
    """Where the walk ended: the newest root and targets, who signed targets, the floors proved and the first expiry.

    `former` are the targets keys of older roots of the chain that sign no longer; `revoked` are the key ids that a root
    on the way has revoked. `files` are the bytes that were walked, by name; `passed_over` holds the reasons why other
    sources were not used.
    """

    root: Root
    root_bytes: bytes
    targets: Targets
    signers: tuple[PublicKey, ...]
    floors: Floors
    expires: tuple[str, str]
    former: tuple[PublicKey, ...]
    revoked: frozenset[Digest]
    files: Mapping[str, bytes]
    passed_over: tuple[NotTrustedError, ...] = ()

    @property
    def is_expired(self) -> bool:
        """Whether the chain has proved its own first expiry, or a time after it (5.3.10)."""
        return self.expires[0] <= self.floors.time


def walk(
    pinned: bytes,
    read: ReadMetadata,
    floors: Floors,
    others: Sequence[ReadMetadata] = (),
    rules: Rules = ours,
    links: Sequence[ReadMetadata] = (),
) -> Walked:
    """Go from the pinned root to the newest targets.

    Args:
        pinned: the root file that somebody decided to trust; never one found beside what is verified.
        read: gives untrusted metadata bytes by file name.
        floors: the lowest versions and time that this host accepts.
        others: further sources, as untrusted: what the host has stored, other sticks.
        rules: how files are read; the product passes none but its own (TRUST 2).
        links: where else older roots may lie that a source lacks, as untrusted; `others` are such places, too.

    Raises:
        NotTrustedError: no source keeps every rule of the workflow; this is what is wrong with the first.
    """
    found, faults = [], []
    for source in (read, *others):
        try:
            found.append(_walk(pinned, source, floors, rules, (*others, *links)))
        except NotTrustedError as error:
            faults.append(error)
    if not found:
        raise faults[0]
    best = max(
        found, key=lambda one: (one.root.version, one.targets.version, one.floors.snapshot, one.floors.timestamp)
    )
    return replace(best, passed_over=tuple(faults))


def read_root(data: bytes, subject: str, rules: Rules = ours) -> Root:
    """Read a root file that is signed by its own threshold.

    Raises:
        NotTrustedError: malformed, or not signed by itself.
    """
    root, envelope = rules.parse_root(data, subject)
    own = root.roles["root"]
    if root.version > 1:
        # The people of the root before it have signed it too. The walk checks them; here nobody knows their keys.
        known = tuple(pair for pair in envelope.signatures if pair[0] in own.keys)
        envelope = replace(envelope, signatures=known)
    rules.check_signatures(envelope, own, subject)
    return root


def _walk(pinned: bytes, source: ReadMetadata, floors: Floors, rules: Rules, links: Sequence[ReadMetadata]) -> Walked:
    files: dict[str, bytes] = {}

    def read(name: str, most: int) -> bytes | None:
        if (data := source(name, most)) is not None:
            files[name] = data
        return data

    first = read_root(pinned, "pinned root", rules)  # 5.2
    older = _older_roots(first, pinned, read, rules, links, files)
    roots, root_bytes = walk_roots(first, pinned, read, rules)
    root = roots[-1]
    floors.check("root", root.version, "root.json")
    if any(_replaces_builder(old, new) for old, new in zip(roots, roots[1:]) if new.version > floors.root):
        floors = floors.after_rotation()  # 5.3.11
    data = _must_read(read, "timestamp.json", MAX_BYTES["timestamp"])  # 5.4.1, and 5.4.2 with the next line
    timestamp = rules.parse_pointer(data, root.roles["timestamp"], "timestamp", "snapshot.json", "timestamp.json")
    floors.check("timestamp", timestamp.version, "timestamp.json")  # 5.4.3.1
    name = f"{timestamp.file.version}.snapshot.json"
    floors.check("snapshot", timestamp.file.version, name)  # 5.4.3.2
    data = read_named(read, name, timestamp.file, "snapshot")  # 5.5.1, 5.5.2
    snapshot = rules.parse_pointer(data, root.roles["snapshot"], "snapshot", "targets.json", name)  # 5.5.3
    _check_version(name, timestamp.file.version, snapshot.version)  # 5.5.4
    name = f"{snapshot.file.version}.targets.json"
    floors.check("targets", snapshot.file.version, name)  # 5.5.5
    data = read_named(read, name, snapshot.file, "targets")  # 5.6.1, 5.6.2
    targets, signers = rules.parse_targets(data, root.roles["targets"], name)  # 5.6.3
    _check_version(name, snapshot.file.version, targets.version)  # 5.6.4
    _check_first_contact(floors, timestamp.version, snapshot.version, targets.version)
    issued = max(root.issued, targets.issued)
    proved = Floors(root.version, timestamp.version, snapshot.version, targets.version, issued)
    expires = min(
        (root.expires, "root"),
        (timestamp.expires, "timestamp"),
        (snapshot.expires, "snapshot"),
        (targets.expires, "targets"),
    )
    current = root.roles["targets"].keys
    once = {key.spki: key for one in (*older, *roots) for key in one.roles["targets"].keys.values()}
    former = tuple(key for key in once.values() if key.key_id not in current)
    revoked = frozenset(key_id for one in roots for key_id in one.revoked)
    return Walked(root, root_bytes, targets, signers, floors.raised(proved), expires, former, revoked, files)


def _replaces_builder(old: Root, new: Root) -> bool:
    return any(set(old.roles[role].keys) != set(new.roles[role].keys) for role in ("timestamp", "snapshot"))


def walk_roots(first: Root, pinned: bytes, read: ReadMetadata, rules: Rules = ours) -> tuple[list[Root], bytes]:
    """Go from a pinned root to the newest root.

    Args:
        first: the pinned root, of `read_root`.
        pinned: its bytes.
        read: gives untrusted files by name.
        rules: as for `walk`.

    Returns:
        Every root on the way, the pinned one first, and the bytes of the last.

    Raises:
        NotTrustedError: a successor breaks a rule of the workflow.
    """
    roots, newest = [first], pinned
    for _ in range(MAX_ROTATIONS):
        root = roots[-1]
        name = f"{root.version + 1}.root.json"
        data = read(name, MAX_BYTES["root"])  # 5.3.3
        if data is None:
            return roots, newest
        successor, envelope = rules.parse_root(data, name)
        old, new = root.roles["root"], successor.roles["root"]
        rules.check_signatures(envelope, old, name, others=(new,))  # 5.3.4
        rules.check_signatures(envelope, new, name, others=(old,))
        _check_version(name, root.version + 1, successor.version)  # 5.3.5
        roots.append(successor)  # 5.3.7
        newest = data
    raise NotTrustedError("root.too-many", "root.json", expected=f"at most {MAX_ROTATIONS} rotations", found="more")


def _older_roots(
    first: Root,
    pinned: bytes,
    read: ReadMetadata,
    rules: Rules,
    links: Sequence[ReadMetadata],
    files: dict[str, bytes],
) -> list[Root]:
    """The roots before the pinned one; each has signed the root after it, up to the bytes that were pinned.

    They decide nothing. Yet a file of such a name that is not of this chain shows that it came from somebody else. A
    medium lacks the roots that came after it was written. These are taken from `links`, and added to `files`.
    """
    newer, envelope, older = first, rules.parse_root(pinned, "pinned root")[1], list[Root]()
    _check_copy(first.version, envelope, read, rules)
    for version in range(first.version - 1, max(0, first.version - MAX_ROTATIONS - 1), -1):
        name = f"{version}.root.json"
        own = read(name, MAX_BYTES["root"])
        for data in (own,) if own is not None else (link(name, MAX_BYTES["root"]) for link in links):
            try:
                found = _read_older(name, data, newer, envelope, rules) if data is not None else None
            except NotTrustedError:
                if own is not None:
                    raise
                continue  # another place may hold the right one
            if data is not None and found is not None:
                files[name], (newer, envelope) = data, found
                older.append(newer)
                break
    return older


def _read_older(name: str, data: bytes, newer: Root, signed: Envelope, rules: Rules) -> tuple[Root, Envelope]:
    version = read_root(data, name, rules).version
    _check_version(name, int(name.partition(".")[0]), version)
    if newer.version != version + 1:
        raise _not_of_this_chain(name, f"no {version + 1}.root.json, which it would have signed")
    root, envelope = rules.parse_root(data, name)
    try:
        rules.check_signatures(signed, root.roles["root"], name, others=(newer.roles["root"],))
    except NotTrustedError as error:
        raise _not_of_this_chain(name, str(error)) from None
    return root, envelope


def _check_copy(version: int, pinned: Envelope, read: ReadMetadata, rules: Rules) -> None:
    name = f"{version}.root.json"
    data = read(name, MAX_BYTES["root"])
    if data is None:
        return
    _check_version(name, version, read_root(data, name, rules).version)
    if rules.parse_root(data, name)[1].signed != pinned.signed:
        raise NotTrustedError(
            "root.differs",
            name,
            expected="the trust root that was pinned",
            found="another root of the same version",
            hint="this was made under another trust root; compare `appliance trust show` on both sides",
        )


def _not_of_this_chain(name: str, found: str) -> NotTrustedError:
    return NotTrustedError(
        "root.not-of-this-chain",
        name,
        expected="an older root, whose people have signed the root after it",
        found=found,
        hint="somebody put this file there, or this medium is from before several roots: write it again",
    )


def _check_first_contact(floors: Floors, timestamp: int, snapshot: int, targets: int) -> None:
    # A host without floors takes any version of targets, which people signed by threshold. That version limits what the
    # builder's key alone signed. A stolen key could otherwise put a new host out of reach of later versions (T3).
    first = replace(floors, timestamp=min(timestamp, targets), snapshot=min(snapshot, targets))
    if not floors.timestamp:
        first.check("timestamp", timestamp, "timestamp.json")
    if not floors.snapshot:
        first.check("snapshot", snapshot, f"{snapshot}.snapshot.json")


def _must_read(read: ReadMetadata, name: str, most: int) -> bytes:
    data = read(name, most)
    if data is None:
        raise NotTrustedError(
            "metadata.missing",
            name,
            expected="a file of the publisher's TUF repository",
            found="none",
            hint="this is not a complete bundle or stick; write it again",
        )
    if len(data) > most:
        raise NotTrustedError("metadata.too-long", name, expected=f"at most {most} bytes", found="more")
    return data


def read_named(read: ReadMetadata, name: str, meta: FileMeta, role: str) -> bytes:
    """Read the very file that a timestamp or snapshot names.

    Raises:
        NotTrustedError: it is not there, or has another length or sha256.
    """
    data = _must_read(read, name, MAX_BYTES[role])
    if not meta.covers(data):
        raise NotTrustedError(
            "metadata.mixed",
            name,
            expected=f"{meta.length} bytes with sha256 {meta.sha256}",
            found=f"{len(data)} bytes with sha256 {sha256(data)}",
            hint="these files do not belong together; ask for the whole stick again",
        )
    return data


def _check_version(name: str, expected: int, found: int) -> None:
    if expected != found:
        raise NotTrustedError("metadata.version", name, expected=f"version {expected}", found=f"version {found}")
