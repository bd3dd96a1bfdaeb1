"""The record of a verification, as evidence for auditors that it was done.

Owns its format: a DSSE envelope, which the host's key signs where there is one. Its payload is canonical JSON:

    {"format": 1, "host": the host's public key in the form of TUF, or null, "report": the answer of `verify --json`,
     "stated_time": the time of this machine's clock, "tool": the version of this program}

Rules (threat T13):
- a record proves what this host found, not that a bundle is good. The host's clock is stated, and proves nothing;
- without a host key the record has no signature: it is only a note, and `read_evidence` refuses it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime

from appliance.keys.signers.pem import PemKey
from appliance.keys.signers.signer import sign_checked
from appliance.keys.tuf_metadata import format_time
from bundles.attestation.dsse import check_signers, pae, parse_envelope
from signing.digest import Digest
from signing.errors import NotTrustedError
from signing.keys import PublicKey, key_from_json, key_to_json
from signing.strictjson import Json, load, load_canonical, to_file

PAYLOAD_TYPE = "application/vnd.airgap-appliance.evidence.v1+json"
MAX_EVIDENCE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class EvidenceRecord:
    """A record whose signature holds.

    Args:
        host: the key of the host that signed it.
        payload: the members that the module's docstring lists.
    """

    host: PublicKey
    payload: dict[str, Json]


def write_evidence(report: dict[str, Json], key: PemKey | None, now: datetime, tool: str) -> bytes:
    """Write a record.

    Args:
        report: the answer of `verify --json`, errors included.
        key: of the host; None leaves the record unsigned.
        now: the clock, in UTC.
        tool: the version of this program.

    Returns:
        The bytes of the envelope.
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
    """Verify a record by the fingerprint of the host that should have signed it.

    Args:
        data: untrusted.
        fingerprint: of the host's key, from another source than the record.
        subject: the file's name, for errors.

    Returns:
        The record.

    Raises:
        NotTrustedError: it is not a record, is not signed, is of another host, or was changed since.
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
    if type(payload["format"]) is not int or payload["format"] != 1:  # true equals 1
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
