"""The receipt of this host: which bundles it holds, written for the people who make sticks for it.

Owns what is stated and the order of signing. `bundles.receipt` has the form. Nothing leaves the host here: the caller
shows the receipt to a person first.

Rules (threats T33, T39, T116):
- what is stated was verified on this host, or is a number: no text that a person of the site typed is in it;
- a release that is incomplete, or whose chain of trust does not hold, is left out;
- the counter is on the disk before the signature exists.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from appliance.host.layout.install_lock import hold
from appliance.host.layout.prefix import Prefix
from appliance.host.release.release import Release, open_current, open_release
from appliance.host.trust.receipt_counter import ReceiptCounter, read_counter, take_number
from appliance.host.trust.trust_store import read_floors
from appliance.keys.signers.host_key import host_key, host_public
from appliance.keys.signers.signer import sign_checked
from appliance.keys.tuf_metadata import format_time
from bundles.contents.contents import FORMAT
from bundles.receipt import LEVELS, HeldBundle, Receipt, shorten, write_receipt
from signing.errors import ApplianceError, UsageError
from signing.keys import PublicKey


def prepare_receipt(prefix: Prefix, levels: Iterable[str], now: datetime) -> Receipt:
    """State what this host holds, with the next number. Changes nothing.

    Args:
        prefix: the host.
        levels: of the models that it serves; the weakest is stated.
        now: the clock, in UTC.

    Raises:
        UsageError: nothing is installed here.
        NotTrustedError, DamagedError, DriftError: the release that serves cannot be opened, see `open_current`.
    """
    current = open_current(prefix, now)
    served = [level for level in LEVELS if level in set(levels)]
    return shorten(
        Receipt(
            host=_public(prefix),
            counter=read_counter(prefix).counter + 1,
            time=format_time(now),
            reads=FORMAT,
            floors=read_floors(prefix),
            level=served[0] if served else None,
            release=current.bundle.value.manifest,
            bundles=tuple(dict.fromkeys(_held(release) for release in (current, *_others(current, now)))),
        )
    )


def sign_receipt(prefix: Prefix, receipt: Receipt) -> bytes:
    """Sign a receipt that a person has seen, and count it.

    Args:
        prefix: the host.
        receipt: from `prepare_receipt`.

    Returns:
        The bytes of the file.

    Raises:
        BusyError: another receipt took the number, or an install runs.
        UsageError: only the host's administrator can read its key.
    """
    key = host_key(prefix.trust)
    if key is None or key.public != receipt.host:
        raise _no_key(prefix)
    with hold(prefix):
        take_number(prefix, ReceiptCounter(receipt.counter, receipt.time))
    return write_receipt(receipt, lambda message: sign_checked(key, message, "receipt"))


def _held(release: Release) -> HeldBundle:
    contents = release.contents
    return HeldBundle(release.bundle.value.manifest, contents.name, contents.version)


def _others(current: Release, now: datetime) -> list[Release]:
    prefix, found = current.prefix, []
    for path in sorted(prefix.releases.iterdir(), reverse=True):
        if path == current.path or path.is_symlink() or not path.is_dir():
            continue
        try:
            found.append(open_release(prefix, path, now))
        except ApplianceError:
            continue  # it states less than it could, and a stick carries more
    return found


def _public(prefix: Prefix) -> PublicKey:
    public = host_public(prefix.trust)
    if public is None:
        raise _no_key(prefix)
    return public


def _no_key(prefix: Prefix) -> UsageError:
    return UsageError(
        "receipt.no-key",
        str(prefix.trust),
        expected="the key of this host, host.pem and host.pub",
        found="none, or another one",
        hint=f"an install makes it: appliance install SOURCE{prefix.option}",
    )
