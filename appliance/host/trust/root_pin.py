"""Pinning a trust root on a host: the one decision that a person makes about trust (threats T9, T40, T95).

Owns the comparison of a root file with fingerprints that came by another way. It never takes a fingerprint from the
file that it checks. It never replaces a pinned root: a successor must be signed by the root before it.

Rules:
- a root for real use is pinned with fingerprints, by `trust pin` or `install --root`, and by nothing else;
- a development root, which protects nothing, may be pinned by the first install that names it; that is announced.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from appliance.host.layout.prefix import Prefix
from appliance.host.trust.trust_store import read_root, read_root_file, write_root
from signing.chain import read_root as parse_root
from signing.digest import Digest, parse_digest
from signing.errors import ApplianceError, NotTrustedError, UsageError


def pin_root(prefix: Prefix, path: Path, fingerprints: Sequence[str]) -> bool:
    """Pin a root file whose keys have the fingerprints.

    Args:
        prefix: the host's tree; created where it is missing.
        path: the root file, untrusted.
        fingerprints: of root keys, from paper; spaces, colons and capitals do not matter.

    Returns:
        False where exactly this root is pinned already.

    Raises:
        NotTrustedError: a fingerprint belongs to no root key, or fewer were given than keys that must sign.
        ApplianceError: another root is pinned (code `trust.already-pinned`).
    """
    data = compare_root(path, fingerprints)
    pinned = read_root(prefix)
    if pinned is not None and pinned != data:
        raise ApplianceError(
            "trust.already-pinned",
            str(prefix.trust),
            expected="no pinned root, or this one",
            found="another root",
            hint="a new root of the same publisher comes with its bundles; another publisher needs another --prefix",
        )
    prefix.create()
    return write_root(prefix, data)


def compare_root(path: Path, fingerprints: Sequence[str]) -> bytes:
    """Compare a root file with fingerprints from paper, and return its bytes.

    Args:
        path: the root file, untrusted.
        fingerprints: of root keys, from paper; spaces, colons and capitals do not matter.

    Raises:
        NotTrustedError: a fingerprint belongs to no root key, or fewer were given than keys that must sign.
        UsageError: a text is no fingerprint.
    """
    data = read_root_file(path)
    root = parse_root(data, str(path)).roles["root"]
    known = {key.fingerprint for key in root.keys.values()}
    given = {parse_fingerprint(text) for text in fingerprints}
    strangers = sorted(given - known)
    if strangers:
        raise NotTrustedError(
            "trust.wrong-fingerprint",
            str(path),
            expected=f"a root key with fingerprint {', '.join(strangers)}",
            found=", ".join(sorted(known)),
            hint="compare with the paper once more; if it still differs, this root is not the one on the paper",
        )
    if len(given) < root.threshold:
        raise NotTrustedError(
            "trust.too-few-fingerprints",
            str(path),
            expected=f"{root.threshold} fingerprints, as many as must sign",
            found=str(len(given)),
            hint="give --fingerprint once for each key on the paper",
        )
    return data


def check_first_root(prefix: Prefix, trust: bytes) -> None:
    """Refuse an install that would pin a root for real use without a fingerprint.

    Args:
        prefix: the host.
        trust: bytes of the root that the install was given.

    Raises:
        NotTrustedError: nothing is pinned here, and it is no development root (code `trust.not-pinned`).
    """
    if read_root(prefix) is None and not parse_root(trust, "named root").profile:
        raise NotTrustedError(
            "trust.not-pinned",
            str(prefix.root),
            expected="a trust root whose fingerprints a person has compared with paper",
            found="none pinned here; a named root is only pinned by an install if it is a development root",
            hint=f"compare with the paper, then: appliance trust pin ROOT --fingerprint SHA256{prefix.option}",
        )


def parse_fingerprint(text: str, option: str = "--fingerprint") -> Digest:
    """Parse a fingerprint that a person types from paper: spaces, colons and capitals do not matter.

    Args:
        text: as it was typed.
        option: the option that it was typed for, for errors.

    Raises:
        UsageError: the text is no fingerprint.
    """
    digits = "".join(text.split()).replace(":", "").lower()
    try:
        return parse_digest(digits, option)
    except NotTrustedError:
        raise UsageError(
            "trust.fingerprint-spelling",
            option,
            expected="64 hexadecimal digits; spaces, colons and capitals are fine",
            found=f"{len(digits)} characters: {text[:80]!r}",
            hint="type it again from the paper",
        ) from None
