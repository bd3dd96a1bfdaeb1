"""Incidents of integrity: a model whose bytes on this host are not the signed ones, or cannot be read (threat T18).

Owns the record that stops such a model until somebody repairs it: one small file for each model's file, by its signed
sha256. An engine, a scrub or `appliance serve` writes it; every start of an engine reads it.

Rules:
- the first record stays: what was found first is what a person has to see;
- a record that cannot be read counts as an incident: nothing is served because of a broken file;
- only an install clears records, after it has compared every byte again;
- the record belongs to the file of the model, so another release with the same file is stopped, too;
- it holds no text of a user.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.places import REPAIR_HINT
from appliance.host.layout.prefix import Prefix, make_folder
from bundles.contents.contents import File
from signing.digest import Digest
from signing.errors import DriftError

BYTES, UNREADABLE, BUS_ERROR, RUNTIME, UNKNOWN = "bytes", "unreadable", "bus-error", "runtime", "unknown"
"""What was found: other bytes; a part that cannot be read; the kernel ended the engine, since a page of its file was
refused or unreadable; the engine's program or a library differs; a record that cannot be read."""

WORDS = {
    BYTES: "its bytes are not the signed ones",
    UNREADABLE: "its files cannot be read",
    BUS_ERROR: "the disk gave no signed bytes while it served",
    RUNTIME: "its program or a library is not as it was signed",
    UNKNOWN: "an incident is recorded that cannot be read",
}
"""The causes for people; also the reason in an engine's state."""

INCIDENT_CODE = "model.incident"
MAX_DETAIL = 300
_MAX_BYTES = 4 << 10
_MODE = 0o644
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident.

    Args:
        model: the model's name.
        file: sha256 of its file, as signed.
        cause: one of the words above.
        detail: of the machine, at most `MAX_DETAIL` printable characters.
        time: when it was found, in UTC, as `2026-01-31T12:00:00Z`.
    """

    model: str
    file: Digest
    cause: str
    detail: str
    time: str

    @property
    def reason(self) -> str:
        """Why the model is stopped, for people."""
        return WORDS[self.cause]

    def error(self) -> DriftError:
        """The error of a start of this model, and of `appliance status`."""
        return DriftError(
            INCIDENT_CODE,
            self.model,
            expected="a model whose bytes are the signed ones",
            found=f"{self.reason} (found {self.time}): {self.detail}" if self.detail else self.reason,
            hint=f"look at the disk; then {REPAIR_HINT}",
        )


def incident_file(prefix: Prefix, file: Digest) -> Path:
    """The record of one model's file."""
    return prefix.engine_state / f"incident-{file}.json"


def record_incident(prefix: Prefix, incident: Incident) -> bool:
    """Record an incident durably.

    Args:
        prefix: the host.
        incident: what was found; its detail is cut and made printable.

    Returns:
        False where one is recorded already; that one stays.

    Raises:
        OSError: it cannot be written.
    """
    path = incident_file(prefix, incident.file)
    if os.path.lexists(path):
        return False
    make_folder(path.parent)
    fields = asdict(incident) | {"detail": printable(incident.detail)}
    write_file(path, json.dumps(fields).encode() + b"\n", _MODE)
    return True


def read_incident(prefix: Prefix, file: Digest, model: str) -> Incident | None:
    """Read the incident of one model's file; None where there is none.

    Args:
        prefix: the host.
        file: sha256 of the file.
        model: its name here.

    Returns:
        One with cause `UNKNOWN` where something lies there that is no record.
    """
    path = incident_file(prefix, file)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as opened:
            data = opened.read(_MAX_BYTES + 1)
        return _parse(data, file, model)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return Incident(model, file, UNKNOWN, str(path), "")


def refuse_incident(prefix: Prefix, file: File, model: str) -> None:
    """Refuse to start a model whose file has a recorded incident.

    Args:
        prefix: the host.
        file: of the model, verified.
        model: its name.

    Raises:
        DriftError: code `model.incident`, with what was found and when.
    """
    found = read_incident(prefix, file.sha256, model)
    if found is not None:
        raise found.error()


def make_incident(model: str, file: Digest, cause: str, detail: str, now: datetime) -> Incident:
    """Make an incident that was found at this moment, in UTC; `record_incident` writes it."""
    return Incident(model, file, cause, printable(detail), now.strftime("%Y-%m-%dT%H:%M:%SZ"))


def clear_incidents(prefix: Prefix, files: Iterable[Digest]) -> tuple[str, ...]:
    """Clear the records of files whose every byte was just compared with the signed ones.

    Args:
        prefix: the host.
        files: their sha256.

    Returns:
        The digests of those that had one.

    Raises:
        OSError: a record cannot be removed.
    """
    cleared = []
    for file in files:
        try:
            incident_file(prefix, file).unlink()
        except FileNotFoundError:
            continue
        cleared.append(file)
    return tuple(cleared)


def printable(text: str) -> str:
    """A detail as one line of at most `MAX_DETAIL` printable characters."""
    return "".join(sign if sign.isprintable() else " " for sign in text)[:MAX_DETAIL]


def _parse(data: bytes, file: Digest, model: str) -> Incident:
    value = json.loads(data) if len(data) <= _MAX_BYTES else None
    if not isinstance(value, dict) or value.keys() != Incident.__dataclass_fields__.keys():
        raise ValueError("not the fields of an incident")
    if not all(isinstance(text, str) for text in value.values()):
        raise ValueError("a field of another type")
    is_known = value["cause"] in WORDS and value["file"] == file and _DIGEST.fullmatch(value["file"])
    if not is_known or not _TIME.fullmatch(value["time"]) or value["detail"] != printable(value["detail"]):
        raise ValueError("a field with another value")
    return Incident(model, file, value["cause"], value["detail"], value["time"])
