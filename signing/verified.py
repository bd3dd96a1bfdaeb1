"""`Verified[T]`: a value that the chain of trust covers.

Owns the type and the token that lets only `signing.verify` build one. A function that takes a `Verified[Contents]`
need not check where it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from signing.digest import Digest
from signing.errors import NotTrustedError
from signing.floors import Floors
from signing.keys import PublicKey
from signing.roles import Role

T = TypeVar("T")
_TOKEN = object()


@dataclass(frozen=True)
class Evidence:
    """Why a value is verified: who signed it, and what the chain proves.

    Args:
        target: the TUF target's name.
        sha256: digest of the target's bytes.
        status: `current` or `allowed` in the newest targets file.
        signers: the distinct keys that signed targets.
        threshold: how many had to.
        asked: how many may.
        profile: `development` for a development root, else empty.
        root: who may sign for the root: the newest that the chain has.
        root_fingerprints: fingerprints of its keys, sorted.
        floors: what this chain proves: the floors of a host that accepts it.
        expires: the first day on which a part of the chain is too old for new installs, with the role's name.
        is_expired: whether the time that the chain itself proves has reached that moment.
        attesters: the targets keys of the newest root, who may sign statements in other formats.
        former: targets keys of older roots of the chain, which sign no longer.
        revoked: key ids that a root of the chain has revoked; nothing that such a key signed is accepted.
        metadata: the files that were walked, by name: what a host keeps, so that it reads them once (T16).
        passed_over: why other sources of metadata were not used: reported, nothing is decided by it.
        clock_is_behind: whether the machine's clock shows less than the proved time: reported only (T27).
    """

    target: str
    sha256: Digest
    status: str
    signers: tuple[PublicKey, ...]
    threshold: int
    asked: int
    profile: str
    root: Role
    root_fingerprints: tuple[Digest, ...]
    floors: Floors
    expires: tuple[str, str]
    is_expired: bool
    clock_is_behind: bool
    attesters: tuple[PublicKey, ...] = ()
    former: tuple[PublicKey, ...] = ()
    revoked: frozenset[Digest] = frozenset()
    metadata: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    passed_over: tuple[NotTrustedError, ...] = ()

    @property
    def is_development(self) -> bool:
        """Whether a development root stands behind it."""
        return bool(self.profile)


class Verified(Generic[T]):
    """A value and the evidence for it; built by `signing.verify.verify` and nowhere else."""

    __slots__ = ("evidence", "value")

    def __init__(self, value: T, evidence: Evidence, token: object) -> None:
        if token is not _TOKEN:
            raise TypeError("only signing.verify builds a Verified")
        self.value = value
        self.evidence = evidence
