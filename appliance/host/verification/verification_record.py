"""The record of a verification, or of the figures of `bench`, as evidence for auditors that it was done.

Owns its format: a DSSE envelope, which the host's key signs where there is one. Its payload is canonical JSON:

    {"format": 1, "host": the host's public key in the form of TUF, or null, "report": the answer of `verify --json`,
     "stated_time": the time of this machine's clock, "tool": the version of this program}

Rules (threat T13):
- a record proves what this host found, not that a bundle is good. The host's clock is stated, and proves nothing;
- without a host key the record has no signature: it is only a note, and `read_evidence` refuses it;
- a record is never longer than `read_evidence` takes: the first 50 errors are in it, and how many were left out;
- the texts in it are escaped: a name that is no UTF-8 is no reason for a check without a record.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from appliance.host.verification.bench_report import check_bench, is_bench
from appliance.keys.signers.pem import PemKey
from appliance.keys.signers.signer import sign_checked
from appliance.keys.tuf_metadata import format_time
from bundles.attestation.dsse import check_signers, pae, parse_envelope
from bundles.report import escape
from signing.digest import Digest
from signing.errors import NotTrustedError
from signing.keys import PublicKey, key_from_json, key_to_json
from signing.strictjson import Json, load, load_canonical, to_file

PAYLOAD_TYPE = "application/vnd.airgap-appliance.evidence.v1+json"
MAX_EVIDENCE_BYTES = 1 << 20
_MAX_TEXT_BYTES = 500
_MAX_ITEMS = {"errors": 50, "passed_over": 10}
_MAX_OTHER_ITEMS = 100
_TEXTS = dict.fromkeys(("name", "version", "status", "path", "manifest", "profile", "proved_time"), str)
_NUMBERS = dict.fromkeys(("asked", "threshold", "files", "bytes"), int)
_VERIFIED = {**_TEXTS, **_NUMBERS, "verified": bool, "signers": list, "expires": dict}
_FAILED = {"verified": bool, "path": str, "exit_code": int, "errors": list}
_FAULT = {"subject": str, "code": str}
_BESIDE = {"name": str, "left_by": str}
_ATTESTED = {"path": str, "signer": str, "counts": bool}


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
        report: the answer of `verify --json`, errors included; texts and lists are cut to what a record holds.
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
            "report": _bounded(report),
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


def check_report(report: Json, subject: str) -> dict[str, Json]:
    """Return the report of a record where a reader can print it: the host that signed it may be of any version.

    Args:
        report: of a record whose signature holds.
        subject: the file's name, for the error.

    Raises:
        NotTrustedError: a member that is printed is missing or of another type.
    """
    if not isinstance(report, dict):
        raise _odd(subject, "report")
    if is_bench(report):
        check_bench(report, subject)
        return report
    wanted = _VERIFIED if report.get("verified") is True else _FAILED
    _check_members(report, wanted, subject)
    for name, members in (("errors", _FAULT), ("beside", _BESIDE), ("attestations", _ATTESTED)):
        items = report.get(name, [])
        if not isinstance(items, list):
            raise _odd(subject, name)
        for item in items:
            _check_members(item, members, subject)
    if wanted is _VERIFIED:
        _check_members(report["expires"], {"role": str, "time": str}, subject)
        if not all(isinstance(signer, str) for signer in report["signers"]):
            raise _odd(subject, "signers")
        if report.get("boot") is not None:
            _check_members(report["boot"], {"serial": int, "signers": list, "threshold": int}, subject)
        if report.get("override") is not None:
            _check_override(report["override"], subject)
    if report.get("egress") is not None:
        _check_members(report["egress"], {"since": str, "problems": list}, subject)
    return report


def _check_override(value: Json, subject: str) -> None:
    if not isinstance(value, dict):
        raise _odd(subject, "override")
    if "error" in value:
        _check_members(value, {"error": str}, subject)
        return
    _check_members(value, {"last_day": str, "signers": list, "host" if "host" in value else "site": str}, subject)
    if not all(isinstance(signer, str) for signer in value["signers"]):
        raise _odd(subject, "signers")


def _check_members(value: Json, members: Mapping[str, type], subject: str) -> None:
    for name, kind in members.items():
        if not isinstance(value, dict) or type(value.get(name)) is not kind:
            raise _odd(subject, name)


def _odd(subject: str, name: str) -> NotTrustedError:
    return NotTrustedError(
        "evidence.refused",
        subject,
        expected="a report of `appliance verify`",
        found=f"another or no {name}",
        hint="the program of that host wrote what this one does not print; --json shows all of it",
    )


def _bounded(value: Json, name: str = "") -> Json:
    if isinstance(value, str):
        data = escape(value).encode()
        return data.decode() if len(data) <= _MAX_TEXT_BYTES else f"{data[:_MAX_TEXT_BYTES].decode(errors='ignore')}…"
    if isinstance(value, list):
        return [_bounded(item) for item in value[: _MAX_ITEMS.get(name, _MAX_OTHER_ITEMS)]]
    if not isinstance(value, dict):
        return value
    left_out = {
        f"{name}_left_out": len(value[name]) - most
        for name, most in _MAX_ITEMS.items()
        if isinstance(value.get(name), list) and len(value[name]) > most
    }
    return {name: _bounded(item, name) for name, item in value.items()} | left_out
