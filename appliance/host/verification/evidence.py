"""A record of a verification, for whoever has to show later that it was done.

Owns its format: a DSSE envelope, which the host's key signs where there is one. Its payload is canonical JSON:

    {"format": 1, "host": the host's public key as TUF spells keys, or null, "report": what `verify --json` answers,
     "stated_time": what this machine's clock said, "tool": the version of this program}

Rules (threat T13):
- a record proves what this host found, not that a bundle is good; the host's clock is stated, not believed;
- without a host key the record has no signature and says so; it is then a note, and a check of it is refused.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime

from appliance.keys.metadata import format_time
from appliance.keys.signers.pem import PemKey
from appliance.keys.signers.signer import sign_checked
from bundles.attestation.dsse import check_signers, pae, parse_envelope
from signing.digest import Digest
from signing.errors import NotTrustedError
from signing.keys import PublicKey, key_from_json, key_to_json
from signing.strictjson import Json, load, load_canonical, to_file

PAYLOAD_TYPE = "application/vnd.airgap-appliance.evidence.v1+json"
MAX_EVIDENCE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class EvidenceRecord:
    """A record that a host signed: its key, and what it found."""

    host: PublicKey
    payload: dict[str, Json]


def write_evidence(report: dict[str, Json], key: PemKey | None, now: datetime, tool: str) -> bytes:
    """Spell a record.

    Args:
        report: what `verify --json` answers, errors included.
        key: the host's; None leaves the record unsigned.
        now: the clock, in UTC.
        tool: the version of this program.
    """
    payload = to_file(
        {
            "format": 1,
            "host": key_to_json(key.public) if key else None,
            "report": report,
            "stated_time": format_time(now),
            "tool": tool,
        }
    )
    signatures = []
    if key is not None:
        signature = sign_checked(key, pae(PAYLOAD_TYPE, payload), "evidence")
        signatures = [{"keyid": key.public.key_id, "sig": base64.b64encode(signature).decode()}]
    value = {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE, "signatures": signatures}
    return to_file(value)


def read_evidence(data: bytes, fingerprint: Digest, subject: str) -> EvidenceRecord:
    """Check a record against the fingerprint of the host that should have made it.

    Args:
        data: untrusted.
        fingerprint: of the host's key, known from elsewhere.
        subject: the file's name, for errors.

    Raises:
        NotTrustedError: no record, unsigned, by another host, or changed since.
    """
    value = load(data, subject, MAX_EVIDENCE_BYTES)
    if isinstance(value, dict) and value.get("signatures") == []:
        raise NotTrustedError(
            "evidence.unsigned",
            subject,
            expected="a record that a host signed",
            found="a note without a signature",
            hint="make it on the host: appliance verify --evidence FILE",
        )
    envelope = parse_envelope(value, PAYLOAD_TYPE, subject)
    payload = load_canonical(envelope.payload, subject, MAX_EVIDENCE_BYTES)
    if not isinstance(payload, dict) or set(payload) != {"format", "host", "report", "stated_time", "tool"}:
        raise NotTrustedError("evidence.refused", subject, expected="a record of format 1", found="something else")
    if payload["format"] != 1:
        raise NotTrustedError("evidence.refused", subject, expected="format 1", found=repr(payload["format"])[:40])
    host = key_from_json(payload["host"], subject)
    if host.fingerprint != fingerprint:
        raise NotTrustedError(
            "evidence.other-host",
            subject,
            expected=f"a record by the host with key {fingerprint}",
            found=f"one by key {host.fingerprint}",
            hint="compare with the fingerprint that was written down at install: appliance trust show",
        )
    check_signers(envelope, [host], 1, subject)
    return EvidenceRecord(host, payload)
