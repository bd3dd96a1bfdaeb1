"""The receipt: a signed statement of one host, which lists what it holds (FORMAT 13).

Owns the form. A receipt chooses what a stick for this host leaves out, and decides nothing else. It is no proof that a
bundle is good, and a host hashes every byte that it takes from its own disk (threats T25, T39).

Rules:
- a DSSE envelope, canonical JSON, at most 16 KiB, with one signature by the key of the host that it names;
- every word in it follows a grammar: digests, versions, names of bundles, times and levels. A note or a host's name has
  no place in it (threat T116);
- the caller gives the hosts that it knows; a receipt of another host is refused before anything of it is used.
"""

from __future__ import annotations

import base64
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Callable

from bundles.attestation.dsse import check_signers, pae, parse_envelope
from bundles.contents.paths import check_name
from signing.digest import Digest, parse_digest
from signing.errors import NotTrustedError
from signing.floors import Floors, parse_floors
from signing.keys import PublicKey, key_from_json, key_to_json
from signing.roles import parse_time
from signing.strictjson import MAX_INT, Json, load, load_canonical, to_file

PAYLOAD_TYPE = "application/vnd.airgap-appliance.receipt.v1+json"
MAX_RECEIPT_BYTES = 16 << 10
MAX_HELD = 64
"""Bundles in one receipt."""
LEVELS = ("E1", "E2", "E4")
"""How the bytes of a served model are bound to those that were signed, the weakest first."""
_FIELDS = {"bundles", "counter", "floors", "format", "head", "host", "level", "reads", "release", "time"}


@dataclass(frozen=True)
class HeldBundle:
    """A bundle that a host holds: the digest of its manifest, and the name and version that were signed."""

    manifest: Digest
    name: str
    version: str


@dataclass(frozen=True)
class Receipt:
    """What a host states.

    Args:
        host: its key.
        counter: 1 for its first receipt, and higher in each one after it.
        time: of the host's clock, which proves nothing.
        reads: the newest format of `contents.json` that its program reads.
        floors: the lowest versions that it accepts.
        level: the weakest of `LEVELS` of the models that it serves; None where it serves none.
        release: the manifest of the bundle that serves; None where none is installed.
        bundles: what it holds; the one that serves stands first.
    """

    host: PublicKey
    counter: int
    time: str
    reads: int
    floors: Floors
    level: str | None
    release: Digest | None
    bundles: tuple[HeldBundle, ...]

    @property
    def payload(self) -> bytes:
        """The bytes that are signed: canonical JSON."""
        return to_file(
            {
                "bundles": [asdict(bundle) for bundle in self.bundles],
                "counter": self.counter,
                "floors": asdict(self.floors),
                "format": 1,
                "head": None,
                "host": key_to_json(self.host),
                "level": self.level,
                "reads": self.reads,
                "release": self.release,
                "time": self.time,
            }
        )


def shorten(receipt: Receipt) -> Receipt:
    """Leave out bundles from the end until the receipt is as short as it has to be.

    A bundle that is left out is carried once more. Nothing is lost by that.
    """
    short = replace(receipt, bundles=receipt.bundles[:MAX_HELD])
    while len(_envelope(short.payload, bytes(72), short.host)) > MAX_RECEIPT_BYTES:
        short = replace(short, bundles=short.bundles[:-1])
    return short


def write_receipt(receipt: Receipt, sign: Callable[[bytes], bytes]) -> bytes:
    """Write a receipt.

    Args:
        receipt: not longer than `shorten` makes it.
        sign: makes a signature, ECDSA P-256 in DER, with the key of `receipt.host` over a message.

    Returns:
        The bytes of the envelope, at most `MAX_RECEIPT_BYTES`.
    """
    return _envelope(receipt.payload, sign(pae(PAYLOAD_TYPE, receipt.payload)), receipt.host)


def read_receipt(data: bytes, known: Collection[Digest], subject: str) -> Receipt:
    """Verify a receipt.

    Args:
        data: untrusted.
        known: fingerprints of the keys of hosts whose receipts count; they did not come with the receipt.
        subject: the file's name, for errors.

    Raises:
        NotTrustedError: no receipt, one of a host that is not known, one that was changed since it was signed, or one
            with a word that the grammar does not give.
    """
    envelope = parse_envelope(load(data, subject, MAX_RECEIPT_BYTES), PAYLOAD_TYPE, subject)
    value = load_canonical(envelope.payload, subject, MAX_RECEIPT_BYTES)
    if not isinstance(value, dict) or "host" not in value:
        raise _refuse(subject, "a receipt of format 1", "something else")
    host = key_from_json(value["host"], subject)
    check_host(host, known, subject)
    check_signers(envelope, [host], 1, subject)
    return _parse(value, host, subject)


def check_host(host: PublicKey, known: Collection[Digest], subject: str) -> None:
    """Refuse a receipt of a host that the reader does not know.

    Raises:
        NotTrustedError: code `receipt.stranger`.
    """
    if host.fingerprint not in known:
        raise NotTrustedError(
            "receipt.stranger",
            subject,
            expected="a receipt of a host that is enrolled here",
            found=f"one by the key {host.fingerprint}",
            hint="compare with what `appliance trust show` says on that host, as written down there; then enrol it "
            "once: appliance receipt read FILE --fingerprint SHA256 --workspace DIR",
        )


def _envelope(payload: bytes, signature: bytes, host: PublicKey) -> bytes:
    signatures = [{"keyid": host.key_id, "sig": base64.b64encode(signature).decode()}]
    value = {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE, "signatures": signatures}
    return to_file(value)


def _parse(value: dict[str, Json], host: PublicKey, subject: str) -> Receipt:
    if type(value.get("format")) is not int or value["format"] != 1:  # true equals 1
        raise _refuse(subject, "format 1", repr(value.get("format"))[:40])
    check_words(value, subject)
    release, level = value["release"], value["level"]
    return Receipt(
        host,
        _count(value["counter"], "counter", subject),
        parse_time(value["time"], "time", subject),
        _count(value["reads"], "reads", subject),
        parse_floors(to_file(value["floors"]), subject),
        level,
        None if release is None else parse_digest(release, subject),
        tuple(_held(item, subject) for item in value["bundles"]),
    )


def check_words(value: dict[str, Json], subject: str) -> None:
    """Refuse a receipt that could carry a text out: other members, other words, or too many of them (threat T116).

    Raises:
        NotTrustedError: code `receipt.refused`.
    """
    if set(value) != _FIELDS or value["head"] is not None:
        raise _refuse(subject, f"the members {', '.join(sorted(_FIELDS))}, and no head", "others")
    if value["level"] is not None and value["level"] not in LEVELS:
        raise _refuse(subject, f"a level of {', '.join(LEVELS)}, or none", repr(value["level"])[:40])
    bundles = value["bundles"]
    if not isinstance(bundles, list) or len(bundles) > MAX_HELD:
        raise _refuse(subject, f"a list of at most {MAX_HELD} bundles", "something else")
    manifests = {_held(item, subject).manifest for item in bundles}
    if len(manifests) != len(bundles):
        raise _refuse(subject, "each bundle once", "one twice")
    if value["release"] is not None and value["release"] not in manifests:
        raise _refuse(subject, "a release among the bundles", "another")


def _held(item: Json, subject: str) -> HeldBundle:
    if not isinstance(item, dict) or set(item) != {"manifest", "name", "version"}:
        raise _refuse(subject, "bundles with manifest, name, version", "others")
    return HeldBundle(parse_digest(item["manifest"], subject), check_name(item["name"]), check_name(item["version"]))


def _count(value: Json, name: str, subject: str) -> int:
    if type(value) is not int or not 1 <= value <= MAX_INT:
        raise _refuse(subject, f"{name}: a whole number from 1", repr(value)[:40])
    return value


def _refuse(subject: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError("receipt.refused", subject, expected=expected, found=found)
