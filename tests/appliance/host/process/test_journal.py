"""Events reach the journal as one entry each, with fields that nothing can forge; where it is away, serving goes on."""

from __future__ import annotations

import io
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.events import ACCESS_ENDED, FREQUENT, INCIDENT, KINDS, Event
from appliance.host.process.journal import (
    MESSAGE_IDS,
    command_sink,
    encode_entry,
    event_fields,
    event_line,
    is_unit,
    send_entry,
    service_sink,
    write_report,
)
from appliance.serve.gateway.log_lines import JournalHandler, PlainFormatter

STOP = Event(INCIDENT, {"model": "toy", "reason": "its bytes are not the signed ones", "level": "E4"})


def parse_entry(data: bytes) -> dict[str, str]:
    """An entry as journald reads it: `NAME=text`, or a name, a length of 64 bits and so many bytes."""
    found = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, mark, text = line.partition(b"=")
        if not mark:
            [size] = struct.unpack("<Q", data[:8])
            text, data = data[8 : 8 + size], data[8 + size + 1 :]
        found[name.decode()] = text.decode()
    return found


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "journal"))
        listening.setblocking(False)
        yield listening


def entries(journald: socket.socket) -> list[dict[str, str]]:
    found = []
    while True:
        try:
            found.append(parse_entry(journald.recv(1 << 16)))
        except BlockingIOError:
            return found


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[tuple[dict[str, str], io.TextIOWrapper]]:
    """The environment and the stream of a process that systemd started."""
    with (tmp_path / "stream").open("w+") as stream:
        status = os.fstat(stream.fileno())
        yield {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}, stream


def test_event_of_a_unit_is_one_entry_with_its_fields(
    journald: socket.socket, unit: tuple[dict[str, str], io.TextIOWrapper], tmp_path: Path
) -> None:
    environment, stream = unit
    service_sink(environment, stream, tmp_path / "journal")(STOP)
    [entry] = entries(journald)
    assert entry == {
        "MESSAGE": 'incident level=E4 model=toy reason="its bytes are not the signed ones"',
        "MESSAGE_ID": MESSAGE_IDS[INCIDENT],
        "PRIORITY": "2",
        "SYSLOG_IDENTIFIER": "appliance",
        "APPLIANCE_EVENT": "incident",
        "APPLIANCE_LEVEL": "E4",
        "APPLIANCE_MODEL": "toy",
        "APPLIANCE_REASON": "its bytes are not the signed ones",
    }
    assert (tmp_path / "stream").read_text() == ""


def test_event_below_a_prefix_is_one_line_of_the_log(journald: socket.socket, tmp_path: Path) -> None:
    stream = io.StringIO()
    send = service_sink({}, stream, tmp_path / "journal")
    send(STOP)
    send(Event(ACCESS_ENDED, {"status": 200, "took_s": 1.23456, "is_stream": True}))
    for kind in FREQUENT:
        send(Event(kind, {"status": 200}))
    assert stream.getvalue().splitlines() == [
        event_line(STOP),
        "access.ended is_stream=true status=200 took_s=1.235",
    ]
    assert entries(journald) == []


def test_event_that_the_journal_does_not_take_is_a_line_of_the_stream(
    unit: tuple[dict[str, str], io.TextIOWrapper], tmp_path: Path
) -> None:
    environment, stream = unit
    service_sink(environment, stream, tmp_path / "nothing-listens")(STOP)
    assert (tmp_path / "stream").read_text() == f"{event_line(STOP)}\n"


def test_full_journal_makes_nobody_wait(journald: socket.socket, tmp_path: Path) -> None:
    taken = [send_entry(event_fields(STOP), tmp_path / "journal") for _ in range(5000)]
    assert taken[0]
    assert not taken[-1]
    assert len(entries(journald)) == sum(taken)


def test_closed_stream_and_full_disk_do_not_stop_serving() -> None:
    stream = io.StringIO()
    send = service_sink({}, stream)
    stream.close()
    send(STOP)


def test_command_on_the_machine_writes_to_the_journal_and_below_a_prefix_nowhere(
    journald: socket.socket, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command_sink(is_system=False, path=tmp_path / "journal")(STOP)
    assert entries(journald) == []
    command_sink(is_system=True, path=tmp_path / "journal")(STOP)
    assert [entry["APPLIANCE_EVENT"] for entry in entries(journald)] == [INCIDENT]
    command_sink(is_system=True, path=tmp_path / "nothing-listens")(STOP)
    assert capfd.readouterr() == ("", "")


def test_report_for_people_is_one_entry_with_the_fields_of_its_event(
    journald: socket.socket, unit: tuple[dict[str, str], io.TextIOWrapper], tmp_path: Path
) -> None:
    environment, stream = unit
    write_report("error: a\nhint: b", STOP, environment, stream, tmp_path / "journal")
    write_report("error: c", None, environment, stream, tmp_path / "journal")
    write_report("error: d", None, {}, stream, tmp_path / "journal")
    incident, error = entries(journald)
    assert incident == {**event_fields(STOP), "MESSAGE": "error: a\nhint: b"}
    assert error == {"MESSAGE": "error: c", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "appliance"}
    assert (tmp_path / "stream").read_text() == "error: d\n"


def test_each_kind_has_an_identifier_of_its_own_that_stays() -> None:
    assert set(MESSAGE_IDS) == KINDS
    assert len(set(MESSAGE_IDS.values())) == len(KINDS)
    assert all(len(text) == 32 and int(text, 16) for text in MESSAGE_IDS.values())
    # Alerts of sites name it.
    assert MESSAGE_IDS[INCIDENT] == "98f6896097077b99efc794a66e68f20d"


@pytest.mark.parametrize("name", ["", "message", "_PID", "A=B", "A\nB", "É", "A" * 65])
def test_field_that_the_journal_would_take_for_another_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no field"):
        encode_entry({name: "x"})


def test_line_break_in_a_value_begins_no_field() -> None:
    assert parse_entry(encode_entry({"A": "x\nPRIORITY=0\n", "B": ""})) == {"A": "x\nPRIORITY=0\n", "B": ""}


def test_process_of_a_person_is_no_unit(unit: tuple[dict[str, str], io.TextIOWrapper]) -> None:
    environment, stream = unit
    assert is_unit(environment, stream)
    assert not is_unit({}, stream)
    assert not is_unit(environment, io.StringIO())


def test_line_of_the_log_has_its_level_and_no_text_of_an_exception(journald: socket.socket, tmp_path: Path) -> None:
    handler = JournalHandler(tmp_path / "journal", io.StringIO())
    handler.setFormatter(PlainFormatter("%(message)s"))
    log = logging.Logger("appliance.test")
    log.addHandler(handler)
    try:
        raise ValueError("a text of a user")
    except ValueError:
        log.exception("it failed")
    [entry] = entries(journald)
    assert entry["PRIORITY"] == "3"
    assert entry["APPLIANCE_LOGGER"] == "appliance.test"
    assert entry["MESSAGE"].startswith("it failed\nValueError at ")
    assert "a text of a user" not in str(entry)


def test_line_of_the_log_that_the_journal_does_not_take_goes_to_the_stream(tmp_path: Path) -> None:
    stream = io.StringIO()
    handler = JournalHandler(tmp_path / "nothing-listens", stream)
    handler.setFormatter(PlainFormatter("%(message)s"))
    handler.emit(logging.LogRecord("x", logging.WARNING, "", 0, "careful", (), None))
    assert stream.getvalue() == "careful\n"
