"""The expiry override: the people who sign content allow one bundle on one host or site after its metadata expired.

Owns the statement's form, and the check of who signed it (TRUST 12). It lifts the refusal of expired metadata and
nothing else; the host decides whether a statement is for it (`appliance.host.trust.expiry_exemption`).

    {"format": 1, "host": SHA256 or "site": NAME, "last_day": "YYYY-MM-DD", "manifest": SHA256, "target": NAME}

Rules (threats T4, T13, T96):
- a DSSE envelope of its own payload type, signed by the threshold of the targets role of the newest root;
- canonical JSON, no other field; it names one bundle by target and by manifest, and exactly one host or site;
- a host is named by the fingerprint of its key, a site by the name in the `site.yaml` of its hosts.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bundles.attestation.dsse import MAX_ENVELOPE_BYTES, check_signers, pae, parse_envelope
from bundles.contents.json_object import is_day
from bundles.contents.paths import check_name
from bundles.oci.layout import target_name
from signing.digest import Digest, parse_digest
from signing.errors import NotTrustedError
from signing.keys import PublicKey
from signing.roles import BUNDLE_TARGET
from signing.strictjson import Json, load_canonical, to_file

FORMAT = 1
PAYLOAD_TYPE = "application/vnd.airgap-appliance.expiry-override.v1+json"
SITE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
_FIELDS = {"format", "last_day", "manifest", "target"}


@dataclass(frozen=True)
class ExpiryOverride:
    """One statement.

    Args:
        name, version: of the bundle.
        manifest: the sha256 of its manifest.
        host: the fingerprint of a host's key; empty where it is for a site.
        site: the name of a site; empty where it is for a host.
        last_day: `YYYY-MM-DD`; the host's proved time must not be after it.
    """

    name: str
    version: str
    manifest: Digest
    host: str
    site: str
    last_day: str

    @property
    def target(self) -> str:
        """The TUF target that it names."""
        return target_name(self.name, self.version)

    @property
    def message(self) -> bytes:
        """The bytes to sign."""
        return pae(PAYLOAD_TYPE, self.to_payload())

    @property
    def place(self) -> str:
        """For whom it is, in words."""
        return f"host {self.host}" if self.host else f"site {self.site}"

    def to_payload(self) -> bytes:
        """The bytes that are signed, inside DSSE's encoding."""
        place = {"host": self.host} if self.host else {"site": self.site}
        fields = {"last_day": self.last_day, "manifest": self.manifest, "target": self.target}
        return to_file({"format": FORMAT, **fields, **place})


def parse_override(payload: bytes, subject: str) -> ExpiryOverride:
    """Read an untrusted statement.

    Raises:
        NotTrustedError: it breaks a rule of this module (code `override.refused`).
    """
    value = load_canonical(payload, subject, MAX_ENVELOPE_BYTES)
    if not isinstance(value, dict) or set(value) not in (_FIELDS | {"host"}, _FIELDS | {"site"}):
        raise _refuse(subject, "an expiry override for one host or one site", "other fields")
    if type(value["format"]) is not int or value["format"] != FORMAT:
        raise _refuse(subject, f"format {FORMAT}", repr(value["format"])[:40])
    match = BUNDLE_TARGET.match(value["target"]) if isinstance(value["target"], str) else None
    if match is None:
        raise _refuse(subject, "the target of a bundle", repr(value["target"])[:80])
    return ExpiryOverride(
        check_name(match[1]),
        check_name(match[2]),
        parse_digest(value["manifest"], subject),
        parse_digest(value["host"], subject) if "host" in value else "",
        _site(value["site"], subject) if "site" in value else "",
        _day(value["last_day"], subject),
    )


def read_override(
    data: bytes, keys: Iterable[PublicKey], threshold: int, subject: str
) -> tuple[ExpiryOverride, tuple[PublicKey, ...]]:
    """Read an override that as many people have signed as must sign content.

    Args:
        data: the envelope's file, untrusted.
        keys: of the targets role of the newest root.
        threshold: of that role.
        subject: the file's name, for errors.

    Returns:
        The statement, and who signed it.

    Raises:
        NotTrustedError: another payload type, a signature by anybody else, too few, or a statement of another form.
    """
    envelope = parse_envelope(load_canonical(data, subject, MAX_ENVELOPE_BYTES), PAYLOAD_TYPE, subject)
    signers = check_signers(envelope, keys, threshold, subject)
    return parse_override(envelope.payload, subject), signers


def write_override(override: ExpiryOverride, signatures: Mapping[str, bytes]) -> bytes:
    """The envelope's file.

    Args:
        override: what was signed.
        signatures: DER over its message, by key id.
    """
    return to_file(
        {
            "payload": base64.b64encode(override.to_payload()).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {"keyid": key_id, "sig": base64.b64encode(signatures[key_id]).decode()} for key_id in sorted(signatures)
            ],
        }
    )


def _site(value: Json, subject: str) -> str:
    if not isinstance(value, str) or not SITE_NAME.match(value):
        raise _refuse(subject, "the name of a site: a-z 0-9 . _ -, at most 63", repr(value)[:80])
    return value


def _day(value: Json, subject: str) -> str:
    if not is_day(value):
        raise _refuse(subject, "a day that exists, as YYYY-MM-DD", repr(value)[:40])
    return str(value)


def _refuse(subject: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError(
        "override.refused",
        subject,
        expected=expected,
        found=found,
        hint="use the file as the builder's workspace wrote it: overrides/<label>.json",
    )
