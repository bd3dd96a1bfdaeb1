"""T152: a text with line breaks that forges a field, a priority or a whole entry in the journal."""

from __future__ import annotations

import io
import logging
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from appliance.events import INCIDENT, Event
from appliance.host.process.journal import event_fields, send_entry
from appliance.serve.gateway.log_lines import JournalHandler, PlainFormatter
from tests.attacks.harness import guard_off, row

ROW = row(152)
FORGED = "harmless\nPRIORITY=0\nMESSAGE_ID=0\n\nMESSAGE=another entry\n"


def parse(data: bytes) -> list[tuple[str, str]]:
    """The fields of an entry as journald reads them: `NAME=text`, or a name, a length and so many bytes."""
    found = []
    while data:
        line, _, data = data.partition(b"\n")
        name, mark, text = line.partition(b"=")
        if not mark and line:
            [size] = struct.unpack("<Q", data[:8])
            text, data = data[8 : 8 + size], data[8 + size + 1 :]
        if line:
            found.append((name.decode(), text.decode()))
    return found


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[tuple[socket.socket, Path]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "journal"))
        yield listening, tmp_path / "journal"


def write_log(path: Path, text: str) -> None:
    handler = JournalHandler(path, io.StringIO())
    handler.setFormatter(PlainFormatter("%(message)s"))
    record = logging.LogRecord("appliance", logging.WARNING, "", 0, "%s", (text,), None)
    handler.emit(record)


def naive(fields: Mapping[str, str]) -> bytes:
    return "".join(f"{name}={text}\n" for name, text in fields.items()).encode()


def test_unattacked_event_is_one_entry_whose_fields_are_those_of_the_event(
    journald: tuple[socket.socket, Path],
) -> None:
    listening, path = journald
    event = Event(INCIDENT, {"model": "toy", "reason": "its bytes are not the signed ones"})
    assert send_entry(event_fields(event), path)
    assert dict(parse(listening.recv(1 << 16))) == event_fields(event)


def test_attacked_by_a_line_break_in_a_field_of_an_event() -> None:
    with pytest.raises(ValueError, match="no text of an event"):
        Event(INCIDENT, {"model": FORGED})


def test_attacked_by_line_breaks_in_a_value_that_reaches_the_journal(journald: tuple[socket.socket, Path]) -> None:
    listening, path = journald
    assert send_entry({"MESSAGE": FORGED, "PRIORITY": "4"}, path)
    assert parse(listening.recv(1 << 16)) == [("MESSAGE", FORGED), ("PRIORITY", "4")]


def test_attacked_by_line_breaks_in_a_line_of_the_log(journald: tuple[socket.socket, Path]) -> None:
    listening, path = journald
    write_log(path, FORGED)
    entry = parse(listening.recv(1 << 16))
    assert [name for name, _ in entry] == ["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "APPLIANCE_LOGGER"]
    assert dict(entry)["MESSAGE"] == "harmless"


def test_unguarded_a_text_sets_the_priority_of_its_entry(journald: tuple[socket.socket, Path]) -> None:
    listening, path = journald
    with guard_off(ROW.guard, naive):
        assert send_entry({"MESSAGE": FORGED, "PRIORITY": "4"}, path)
    assert ("PRIORITY", "0") in parse(listening.recv(1 << 16))
