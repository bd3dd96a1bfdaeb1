"""A TUF repository written with python-tuf's metadata API, in memory: another implementation than ours is the oracle.

`publish` signs the roles that a test has changed, in the order it names, as a careless or hostile publisher might.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from functools import cache
from typing import Any

from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

LATER = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=30)
PAST = LATER - timedelta(days=60)
EVERY = ("root", "targets", "snapshot", "timestamp")


@cache
def signer(owner: str, kind: str = "ecdsa") -> CryptoSigner:
    """Somebody's key, the same throughout a test run."""
    return {
        "ecdsa": CryptoSigner.generate_ecdsa,
        "ed25519": CryptoSigner.generate_ed25519,
        "rsa": CryptoSigner.generate_rsa,
        "rsa-pkcs1v15": lambda: CryptoSigner.generate_rsa(scheme="rsa-pkcs1v15-sha256"),
        "ecdsa, as once spelled": _old_ecdsa,
    }[kind]()


def _old_ecdsa() -> CryptoSigner:
    made = CryptoSigner.generate_ecdsa()
    key = {**made.public_key.to_dict(), "keytype": "ecdsa-sha2-nistp256"}
    return CryptoSigner(made._private_key, SSlibKey.from_dict(made.public_key.keyid, key))


class Publisher:
    """The newest of each role as python-tuf's objects, and every file that was published.

    Args:
        kind: of the first keys; see `signer`.
        has_hashes: whether timestamp and snapshot state the length and sha256 of the file after them.
    """

    def __init__(self, kind: str = "ecdsa", has_hashes: bool = False) -> None:
        self.has_hashes = has_hashes
        self.root = Root(expires=LATER, consistent_snapshot=True)
        self.targets = Targets(expires=LATER)
        self.snapshot = Snapshot(expires=LATER)
        self.timestamp = Timestamp(expires=LATER)
        self.signers: dict[str, list[CryptoSigner]] = {role: [] for role in EVERY}
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        for role in EVERY:
            self.add(role, signer(f"{role}-1", kind))
        self.publish(*EVERY, bump=False)

    def add(self, role: str, *people: CryptoSigner) -> None:
        """Let people sign for a role, in the root file and in fact."""
        for one in people:
            self.root.add_key(one.public_key, role)
            self.signers[role].append(one)

    def replace(self, role: str, *people: CryptoSigner, threshold: int = 1) -> None:
        """Give a role to other people."""
        self.root.roles[role].keyids.clear()
        self.root.roles[role].threshold = threshold
        self.signers[role] = []
        self.add(role, *people)

    def publish(self, *roles: str, bump: bool = True) -> None:
        """Sign roles and make them the newest; a pointer to what was signed is set, and signed if its role follows."""
        for role in roles:
            signed = getattr(self, role)
            signed.version += bump
            data = self.sign(role, signed)
            self.put(role, signed.version, data)
            above: dict[str, Any] = {"targets": self.snapshot, "snapshot": self.timestamp}
            meta = MetaFile(signed.version)
            if self.has_hashes:
                meta = MetaFile.from_data(signed.version, data, ["sha256"])
            if role == "targets":
                above[role].meta["targets.json"] = meta
            elif role == "snapshot":
                above[role].snapshot_meta = meta

    def sign(self, role: str, signed: Any) -> bytes:
        """The file of a role, signed by the people of that role."""
        file: Metadata[Any] = Metadata(signed)
        for one in self.signers[role]:
            file.sign(one, append=True)
        return file.to_bytes(JSONSerializer())

    def put(self, role: str, version: int, data: bytes) -> None:
        """Make bytes a published file."""
        is_named = role == "root" or (role != "timestamp" and self.root.consistent_snapshot)
        self.files[f"metadata/{version}.{role}.json" if is_named else f"metadata/{role}.json"] = data

    def add_target(self, name: str, data: bytes) -> str:
        """Add a target to the next targets file.

        Returns:
            Where its bytes lie.
        """
        target = TargetFile.from_data(name, data, ["sha256"])
        self.targets.targets[name] = target
        folder, slash, file = name.rpartition("/")
        prefix = f"{target.hashes['sha256']}." if self.root.consistent_snapshot else ""
        path = f"targets/{folder}{slash}{prefix}{file}"
        self.files[path] = data
        return path
