"""The one entry point of verification: untrusted bytes in, `Verified` values out.

Owns the decision that a target is covered by a chain of trust. There is no mode without signatures and no argument that
skips a check. It opens no file: bytes come through callbacks.

Rules:
- the root is pinned by somebody beforehand; one found beside what is verified is worth nothing (threats T1, T40);
- the target must be in the newest targets file, `current` or `allowed` (threats T2, T9);
- every statement that it requires must be among those that the parsed value makes (T31);
- its bytes must have the signed length and sha256 before they are parsed (threats T5, T6, T14; TUF 5.7, fetch target).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Callable, Optional, TypeVar

from signing import roles
from signing.chain import ReadMetadata, walk
from signing.digest import sha256
from signing.errors import DamagedError, NotTrustedError
from signing.floors import Floors
from signing.roles import Rules, TargetEntry, Targets
from signing.verified import _TOKEN, Evidence, Verified

T = TypeVar("T")
ReadTarget = Callable[[str, int], Optional[bytes]]
"""Gives the bytes of a target by its path below `targets/`, at most so many and one more, or None."""


@dataclass(frozen=True)
class Chain:
    """Where untrusted bytes come from, and the root that they are checked against.

    Args:
        root: bytes of the pinned root file.
        read_metadata: gives metadata files by name.
        read_target: gives target files by their consistent-snapshot path.
        others: further sources of metadata, as untrusted; the newest valid one wins.
        rules: how files are read; the product passes none but its own (TRUST 2).
        links: where else older roots of the chain may lie, as untrusted.
    """

    root: bytes
    read_metadata: ReadMetadata
    read_target: ReadTarget
    others: tuple[ReadMetadata, ...] = ()
    rules: Rules = roles
    links: tuple[ReadMetadata, ...] = ()


def verify(
    chain: Chain,
    target: str,
    parse: Callable[[bytes], T],
    floors: Floors,
    now: datetime,
    statements: Callable[[T], Collection[str]] = lambda _: (),
) -> Verified[T]:
    """Check a target against the chain, then parse it.

    Args:
        chain: the pinned root and the untrusted bytes.
        target: the target's name, for example `bundles/smollm2/1.0.0/manifest.json`.
        parse: turns the target's bytes into a value; called only after their digest was checked.
        floors: what this host accepts at least.
        now: the clock, in UTC; it decides nothing. The evidence shows whether it is behind the proved time.
        statements: names the statements that a parsed value makes; by default it makes none.

    Returns:
        The parsed value with its evidence. Persist `evidence.floors` before acting on it.

    Raises:
        NotTrustedError: the chain does not cover the target.
        DamagedError: the target's bytes differ from the signed digest.
    """
    walked = walk(chain.root, chain.read_metadata, floors, chain.others, chain.rules, chain.links)
    entry = _find(walked.targets, target)  # 5.7.1, 5.7.2
    value = parse(_read_checked(chain.read_target, target, entry))  # 5.7.3
    _check_statements(entry, statements(value), target)
    evidence = Evidence(
        target=target,
        sha256=entry.sha256,
        status=entry.status,
        signers=walked.signers,
        threshold=walked.root.roles["targets"].threshold,
        asked=len(walked.root.roles["targets"].keys),
        profile=walked.root.profile,
        root=walked.root.roles["root"],
        root_fingerprints=tuple(sorted(key.fingerprint for key in walked.root.roles["root"].keys.values())),
        floors=walked.floors,
        expires=walked.expires,
        is_expired=walked.is_expired,
        attesters=tuple(walked.root.roles["targets"].keys.values()),
        former=walked.former,
        revoked=walked.revoked,
        metadata=walked.files,
        passed_over=walked.passed_over,
        clock_is_behind=now.strftime("%Y-%m-%dT%H:%M:%SZ") < walked.floors.time,
    )
    return Verified(value, evidence, _TOKEN)


def _find(targets: Targets, target: str) -> TargetEntry:
    entry = targets.entries.get(target)
    if entry is None:
        raise NotTrustedError(
            "target.unknown",
            target,
            expected="a target of the newest targets file",
            found=f"{len(targets.entries)} others",
            hint="it was never signed, or was removed; ask a key holder",
        )
    if entry.status == "revoked":
        raise NotTrustedError(
            "target.revoked",
            target,
            expected="current or allowed",
            found="revoked",
            hint="ask for the version after it",
        )
    return entry


def _check_statements(entry: TargetEntry, made: Collection[str], target: str) -> None:
    missing = sorted(set(entry.statements) - set(made))
    if missing:
        raise NotTrustedError(
            "target.statements",
            target,
            expected=f"the statements {', '.join(entry.statements)}",
            found=f"no {', '.join(missing)}",
            hint="ask the publisher for a complete bundle, or update the appliance on this machine first",
        )


def consistent_path(target: str, digest: str) -> str:
    """Where a target lies below `targets/`: `a/b/<sha256>.name` (TUF specification, section 6.2)."""
    folder, slash, name = target.rpartition("/")
    return f"{folder}{slash}{digest}.{name}"


def _read_checked(read: ReadTarget, target: str, entry: TargetEntry) -> bytes:
    path = consistent_path(target, entry.sha256)
    data = read(path, entry.length)
    if data is None:
        raise DamagedError(
            "target.missing", path, expected=f"{entry.length} bytes", found="no file", hint="copy it again"
        )
    if len(data) > entry.length:
        raise NotTrustedError("target.too-long", path, expected=f"{entry.length} bytes", found="more")
    if sha256(data) != entry.sha256:
        raise DamagedError(
            "target.differs",
            path,
            expected=f"sha256 {entry.sha256}",
            found=f"sha256 {sha256(data)}",
            hint="copy it again",
        )
    return data
