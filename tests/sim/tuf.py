"""A publisher's TUF repository in memory, under any thresholds and keys.

What it writes is spelled by the product's own writer; what the product does not write (several signers, rotations,
metadata that nobody should sign) is made by editing that and signing it again. Keys are made once for a whole test run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from appliance.keys.signers.pem import PemKey
from appliance.keys.tuf_metadata import format_time, new_root, sign, write_snapshot, write_targets
from signing.chain import Walked, walk
from signing.digest import sha256
from signing.floors import Floors
from signing.keys import key_from_spki, key_to_json
from signing.strictjson import load
from tests.toy import NOW

Keys = tuple[PemKey, ...]
Signed = dict[str, Any]


@cache
def key(owner: str) -> PemKey:
    """The key of somebody, the same throughout a test run."""
    private = ec.generate_private_key(ec.SECP256R1())
    spki = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return PemKey(private, key_from_spki(spki, owner))


def keys(owner: str, count: int) -> Keys:
    """The keys `owner-1`, `owner-2` …"""
    return tuple(key(f"{owner}-{number}") for number in range(1, count + 1))


@dataclass(frozen=True)
class People:
    """Who may sign, and how many must."""

    root: Keys
    root_threshold: int
    targets: Keys
    targets_threshold: int
    builder: PemKey
    profile: str = ""


USUAL = People(keys("root", 3), 2, keys("targets", 3), 2, key("builder"))
STRANGERS = People(keys("stranger-root", 3), 2, keys("stranger-targets", 3), 2, key("stranger-builder"))


class TufRepository:
    """The newest files of a repository, by name below `metadata/`.

    Args:
        people: of root version 1.
        now: the time that everybody states.
    """

    def __init__(self, people: People = USUAL, now: datetime = NOW) -> None:
        self.people = people
        self.now = now
        self.root_version, self.targets_version, self.snapshot_version = 1, 0, 0
        self.pinned = sign(self.root_of(self.people, 1), self.people.root[: self.people.root_threshold])
        self.files = {"1.root.json": self.pinned}
        self.publish({})

    @property
    def targets_name(self) -> str:
        """The newest targets file."""
        return f"{self.targets_version}.targets.json"

    @property
    def snapshot_name(self) -> str:
        """The newest snapshot file."""
        return f"{self.snapshot_version}.snapshot.json"

    def read(self, name: str, most: int) -> bytes | None:
        """As a reader of a medium gives it."""
        data = self.files.get(name)
        return None if data is None else data[: most + 1]

    def walk(self, floors: Floors | None = None) -> Walked:
        """Walk from the pinned root to the newest targets."""
        return walk(self.pinned, self.read, floors or Floors())

    def root_of(self, people: People, version: int) -> Signed:
        """What a root file for these people says."""
        value = self._signed_part(new_root(people.root[0], people.targets[0], people.builder, self.now))
        everybody = (*people.root, *people.targets, people.builder)
        value["version"] = version
        value["keys"] = {one.public.key_id: key_to_json(one.public) for one in everybody}
        for role, threshold in (("root", people.root_threshold), ("targets", people.targets_threshold)):
            ids = sorted(one.public.key_id for one in getattr(people, role))
            value["roles"][role] = {"keyids": ids, "threshold": threshold}
        value["x-appliance-profile"] = people.profile
        return value

    def targets_of(self, entries: Signed, version: int | None = None) -> Signed:
        """What the next targets file says."""
        number = version or self.targets_version + 1
        return self._signed_part(write_targets(number, entries, self.people.targets[0], self.now))

    def publish(self, entries: Signed, by: Sequence[PemKey] | None = None) -> None:
        """Add targets to what is published, signed by the threshold or by whom it says, with snapshot and timestamp."""
        before = self.signed(self.targets_name)["targets"] if self.targets_version else {}
        self.put_targets(sign(self.targets_of({**before, **entries}), by or self.signers()))

    def put_targets(self, data: bytes, version: int | None = None) -> None:
        """Make bytes the newest targets file, whoever signed them; the builder names them in snapshot and timestamp.

        Args:
            data: the file.
            version: in its name; one more than the last.
        """
        self.files.pop(self.targets_name, None)
        self.targets_version = version or self.targets_version + 1
        self.files[self.targets_name] = data
        self.put_snapshot(self.snapshot_version + 1)

    def put_snapshot(self, version: int) -> None:
        """Name the newest targets in a snapshot and timestamp of that version."""
        self.files.pop(self.snapshot_name, None)
        self.snapshot_version = version
        data = self.files[self.targets_name]
        self.files.update(write_snapshot(version, data, self.targets_version, self.people.builder, self.now))

    def rotate(self, people: People, by: Iterable[PemKey] | None = None) -> None:
        """Publish the next root, signed by the thresholds of old and new people or by whom it says; then the rest."""
        entries = self.signed(self.targets_name)["targets"]
        both = (*self.signers("root"), *people.root[: people.root_threshold])
        self.root_version += 1
        signers = tuple(dict.fromkeys(both if by is None else by))
        self.files[f"{self.root_version}.root.json"] = sign(self.root_of(people, self.root_version), signers)
        self.people = people
        self.publish(entries)

    def edit(self, name: str, change: Callable[[Signed], object], by: Iterable[PemKey] | None = None) -> None:
        """Change what a file says and sign it again; a targets file gets a new snapshot.

        Args:
            name: of a file that is there.
            change: edits the signed part in place.
            by: the signers; None for the role's own.
        """
        value = self.signed(name)
        change(value)
        role = str(value["_type"])
        data = sign(value, tuple(self.signers(role) if by is None else by))
        self.files[name] = data
        if name == "1.root.json":
            self.pinned = data
        if role == "targets":
            self.put_targets(data, self.targets_version)

    def state(self, moment: datetime) -> None:
        """From now on everybody states this time."""
        self.now = moment

    def signers(self, role: str = "targets") -> Keys:
        """As many keys of a role as must sign."""
        if role in ("root", "targets"):
            found: Keys = getattr(self.people, role)
            return found[: getattr(self.people, f"{role}_threshold")]
        return (self.people.builder,)

    def signed(self, name: str) -> Signed:
        """A copy of what a file says, without its signatures."""
        return self._signed_part(self.files[name])

    def write_to(self, folder: Path) -> None:
        """Make a folder hold exactly these files."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for name, data in self.files.items():
            (folder / name).write_bytes(data)

    @staticmethod
    def _signed_part(data: bytes) -> Signed:
        return copy.deepcopy(dict(load(data, "metadata", 8 << 20)["signed"]))


def entry(data: bytes, status: str = "current") -> Signed:
    """What targets say of a file with these bytes."""
    return {
        "length": len(data),
        "hashes": {"sha256": sha256(data)},
        "custom": {"status": status, "statements": []},
    }


def stated(moment: datetime) -> str:
    """A moment as metadata spells it."""
    return format_time(moment)
