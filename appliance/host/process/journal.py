"""Lines with fields for the journal of systemd, in its native protocol, and the sinks of events that write them.

Owns the entry's fields and their form (systemd.journal-fields(7), JOURNAL_NATIVE_PROTOCOL). Rules:
- an event is one entry: `MESSAGE` is its one line, `MESSAGE_ID` is the same for each event of a kind, and its fields
  follow as `APPLIANCE_NAME`;
- a value is sent with its length, so no line break in it begins another field;
- events that each request makes are left out: users could fill the journal;
- writing never raises and never waits: an entry that the journal does not take is lost, and serving goes on;
- where systemd did not start this process, an event is a line of the stream, which is a log file below a prefix.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from appliance.events import (
    ACCESS_ENDED,
    ENGINE_RESTARTED,
    ENGINE_SILENT,
    FREQUENT,
    INCIDENT,
    KINDS,
    MODEL_STOPPED,
    TLS_REFUSED,
    USAGE_UNWRITTEN,
    Event,
    OnEvent,
    Value,
    ignore,
)

SOCKET = Path("/run/systemd/journal/socket")
IDENTIFIER = "appliance"
_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_CRITICAL, _ERROR, _WARNING, _INFO = 2, 3, 4, 6
_PRIORITIES = {
    INCIDENT: _CRITICAL,
    **dict.fromkeys((MODEL_STOPPED, TLS_REFUSED), _ERROR),
    **dict.fromkeys((ENGINE_SILENT, ENGINE_RESTARTED, USAGE_UNWRITTEN, ACCESS_ENDED), _WARNING),
}


def message_id(kind: str) -> str:
    """The `MESSAGE_ID` of a kind of event: the same in every release."""
    return hashlib.sha256(f"airgap-appliance event {kind}".encode()).hexdigest()[:32]


MESSAGE_IDS = {kind: message_id(kind) for kind in sorted(KINDS)}
"""By kind. `journalctl MESSAGE_ID=…` finds the events of one kind."""


def event_line(event: Event) -> str:
    """An event as one line: its kind, then its fields in the order of their names."""
    return " ".join([event.kind, *(f"{name}={_quote(_show(value))}" for name, value in sorted(event.fields.items()))])


def event_fields(event: Event) -> dict[str, str]:
    """The fields of an event's entry in the journal."""
    fields = {
        "MESSAGE": event_line(event),
        "MESSAGE_ID": MESSAGE_IDS[event.kind],
        "PRIORITY": str(_PRIORITIES.get(event.kind, _INFO)),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "APPLIANCE_EVENT": event.kind,
    }
    return fields | {f"APPLIANCE_{name.upper()}": _show(value) for name, value in sorted(event.fields.items())}


def encode_entry(fields: Mapping[str, str]) -> bytes:
    """Serialize an entry in the journal's native protocol.

    Args:
        fields: names of capital letters, digits and underscores; texts of any characters.

    Raises:
        ValueError: a name that the journal would drop or take for one of its own.
    """
    parts = []
    for name, text in fields.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"no field of the journal: {name}")
        data = text.encode("utf-8", "replace")
        parts.append(b"%b\n%b%b\n" % (name.encode(), struct.pack("<Q", len(data)), data))
    return b"".join(parts)


def send_entry(fields: Mapping[str, str], path: Path = SOCKET) -> bool:
    """Send an entry to the journal, without waiting.

    Args:
        fields: see `encode_entry`.
        path: of the journal's socket.

    Returns:
        Whether the journal took it.
    """
    data = encode_entry(fields)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
            sending.setblocking(False)
            sending.sendto(data, str(path))
    except OSError:
        return False
    return True


def is_unit(environment: Mapping[str, str], stream: TextIO) -> bool:
    """Whether systemd started this process with the stream connected to the journal (`JOURNAL_STREAM`)."""
    with contextlib.suppress(OSError, ValueError):
        status = os.fstat(stream.fileno())
        return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
    return False


def service_sink(environment: Mapping[str, str], stream: TextIO, path: Path = SOCKET) -> OnEvent:
    """Where a service sends its events: the journal below systemd, else lines of a stream.

    Args:
        environment: of this process.
        stream: its standard error.
        path: of the journal's socket.
    """
    has_journal = is_unit(environment, stream)

    def send(event: Event) -> None:
        if event.kind in FREQUENT:
            return
        if not has_journal or not send_entry(event_fields(event), path):
            with contextlib.suppress(OSError, ValueError):  # a full disk, or a closed stream
                stream.write(f"{event_line(event)}\n")
                stream.flush()

    return send


def write_report(
    text: str, event: Event | None, environment: Mapping[str, str], stream: TextIO, path: Path = SOCKET
) -> None:
    """Write what a service reports for people, as one entry in the journal; elsewhere as lines of a stream.

    Args:
        text: one line or several, without a text of a user.
        event: what it is about, whose fields the entry gets; None for an error that is no event.
        environment: of this process.
        stream: its standard error.
        path: of the journal's socket.
    """
    fields = event_fields(event) if event else {"PRIORITY": str(_ERROR), "SYSLOG_IDENTIFIER": IDENTIFIER}
    if not is_unit(environment, stream) or not send_entry({**fields, "MESSAGE": text}, path):
        with contextlib.suppress(OSError, ValueError):
            stream.write(f"{text}\n")
            stream.flush()


def command_sink(*, is_system: bool, path: Path = SOCKET) -> OnEvent:
    """Where a command sends its events: the journal where it works on the whole machine, and nowhere below a prefix.

    Args:
        is_system: whether the command works on the machine itself.
        path: of the journal's socket.
    """
    if not is_system:
        return ignore

    def send(event: Event) -> None:
        send_entry(event_fields(event), path)

    return send


def _show(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _quote(text: str) -> str:
    return text if re.fullmatch(r"[\w.,:/@=+-]+", text) else json.dumps(text, ensure_ascii=False)
