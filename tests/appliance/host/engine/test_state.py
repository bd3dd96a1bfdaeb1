"""The state of an engine is written whole, read with suspicion, and corrected by whether the engine answers."""

from __future__ import annotations

import contextlib
import json
import os
import socket as sockets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.host.engine import client as client_module
from appliance.host.engine.client import EngineClient
from appliance.host.engine.process import start_engine
from appliance.host.engine.state import (
    BYTES_DIFFER,
    CANNOT_START,
    RESTARTING,
    SERVING,
    STARTING,
    STOPPED,
    UNREADABLE,
    EngineState,
    read_state,
    state_file,
    stop_reason,
    write_state,
)
from signing.errors import (
    ApplianceError,
    DamagedError,
    DriftError,
    HostUnfitError,
    NotTrustedError,
    UsageError,
)
from tests.sim.engines import make_spec

GOOD = EngineState(SERVING, "", "E2", "netns", 4711)


@pytest.fixture
def socket() -> Iterator[Path]:
    """Where no engine listens, on a short path."""
    with tempfile.TemporaryDirectory(prefix="state-") as folder:
        yield Path(folder) / "toy-1.5.sock"


def test_state_lies_beside_the_socket_and_is_for_the_group(socket: Path) -> None:
    write_state(socket, GOOD)
    assert read_state(socket) == GOOD
    assert [path.name for path in socket.parent.iterdir()] == ["toy-1.5.json"]
    assert state_file(socket).stat().st_mode & 0o777 == 0o640
    fields = {"status": "serving", "reason": "", "level": "E2", "isolation": "netns", "pid": 4711}
    assert json.loads(state_file(socket).read_bytes()) == fields


def altered(**fields: Any) -> bytes:
    value = {"status": "serving", "reason": "", "level": "E2", "isolation": "netns", "pid": 1, **fields}
    return json.dumps({name: text for name, text in value.items() if text is not None}).encode()


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"null"),
        altered(status="happy"),
        altered(status=None),
        altered(other=""),
        altered(pid="1"),
        altered(pid=True),
        altered(pid=-1),
        altered(pid=1 << 70),
        altered(level="E2\r\nx: y"),
        altered(isolation="x" * 17),
        altered(isolation=["netns"]),
        altered(reason="\x1b[2J"),
        altered(reason="x" * 201),
        altered(reason="\ud800"),
        altered(reason="x") + b" " * 5000 + b"x",
    ],
)
def test_what_is_no_state_counts_as_none(socket: Path, data: bytes) -> None:
    state_file(socket).write_bytes(data)
    assert read_state(socket) is None
    assert EngineClient("toy", socket, "").state() == EngineState(RESTARTING)


@pytest.mark.parametrize("kind", ["nothing", "link", "fifo", "folder"])
def test_what_is_no_file_counts_as_none_and_is_not_waited_for(socket: Path, kind: str) -> None:
    path = state_file(socket)
    if kind == "link":
        path.with_name("other").write_bytes(altered())
        path.symlink_to("other")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    assert read_state(socket) is None


def gone() -> int:
    """The id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_engine_that_does_not_answer_never_counts_as_serving(socket: Path) -> None:
    client = EngineClient("toy", socket, "")
    write_state(socket, GOOD)
    assert client.state() == EngineState(RESTARTING)
    write_state(socket, EngineState(STARTING, pid=os.getpid()))
    assert client.state() == EngineState(STARTING, pid=os.getpid())
    write_state(socket, EngineState(STARTING, pid=gone()))
    assert client.state() == EngineState(RESTARTING)
    write_state(socket, EngineState(STARTING))
    assert client.state() == EngineState(RESTARTING)
    write_state(socket, EngineState(RESTARTING, "its engine ended"))
    assert client.state() == EngineState(RESTARTING, "its engine ended")


def test_engine_that_answers_serves_with_what_its_start_wrote(socket: Path) -> None:
    folder = socket.parent
    with start_engine(make_spec(folder), folder, folder / "log") as engine:
        engine.wait_ready(20)
        client = EngineClient("toy", engine.socket, "")
        # Without its level nobody could name what made its answers.
        assert client.state() == EngineState(RESTARTING)
        write_state(engine.socket, EngineState(STARTING, "", "E2", "netns", 7))
        assert client.state() == EngineState(SERVING, "", "E2", "netns", 7)
        write_state(engine.socket, EngineState(STOPPED, BYTES_DIFFER))
        assert client.state() == EngineState(STOPPED, BYTES_DIFFER)


def test_engine_whose_answer_has_no_end_is_read_only_so_far(socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_MAX_ANSWER_BYTES", 1 << 20)
    write_state(socket, GOOD)

    def answer(listener: sockets.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                connection.sendall(bytes(1 << 16))

    with sockets.socket(sockets.AF_UNIX) as listener:
        listener.bind(str(socket))
        listener.listen()
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        assert EngineClient("toy", socket, "").state() == GOOD
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DamagedError("x", "y"), BYTES_DIFFER),
        (NotTrustedError("x", "y"), BYTES_DIFFER),
        (DriftError("x", "y"), BYTES_DIFFER),
        (HostUnfitError("x", "y"), CANNOT_START),
        (UsageError("x", "y"), CANNOT_START),
        (OSError(5, "Input/output error", "/x"), UNREADABLE),
    ],
)
def test_reason_names_what_kind_of_error_it_was(error: ApplianceError | OSError, reason: str) -> None:
    assert stop_reason(error) == reason
