"""Users who connect and send nothing, send it slowly, or do not read their answer, are cut off soon."""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.serve.gateway.server import DESCRIPTORS
from tests.appliance.serve.gateway.site import Site, eventually, opened, question

# The gateway as it is started, with shorter timeouts.
START = "from appliance.serve.listening import connection_timeouts as limit; limit.IDLE_S = limit.STALLED_S = 1"
START += "; from appliance.serve.gateway.server import main; main()"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="gateway-") as name:
        python = Path(name) / "python"
        python.write_text(f"#!/bin/sh\nulimit -S -n 1024\nshift 4\nexec {sys.executable} -I -B -c '{START}' \"$@\"\n")
        python.chmod(0o755)
        with opened(Path(name), {"toy": 1}, python) as made:
            yield made


def connect(site: Site) -> socket.socket:
    return socket.create_connection(("127.0.0.1", site.port), timeout=20)


def head(site: Site, length: int) -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: x", f"authorization: Bearer {site.keys['all']}"]
    return "\r\n".join([*lines, f"content-length: {length}", "", ""]).encode()


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"])
def test_connection_without_a_whole_request_is_closed(site: Site, sent: bytes) -> None:
    with connect(site) as user:
        user.sendall(sent)
        assert user.recv(100) == b""


def test_request_that_comes_byte_by_byte_is_not_waited_for(site: Site) -> None:
    with connect(site) as user:
        until = time.monotonic() + 10
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe, as the kernel likes
            while time.monotonic() < until:
                user.sendall(b"G")
                time.sleep(0.2)


def test_body_that_goes_on_after_its_refusal_is_not_read_without_end(site: Site) -> None:
    with connect(site) as user:
        user.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        assert b" 401 " in user.recv(100)
        until = time.monotonic() + 10
        with pytest.raises(OSError):  # noqa: PT011
            while time.monotonic() < until:
                user.sendall(b" ")
                time.sleep(0.2)


def test_answer_that_takes_longer_than_the_idle_timeout_is_given(site: Site) -> None:
    body = json.dumps(question("slow 40", stream=True)).encode()
    with connect(site) as user:
        user.sendall(head(site, len(body)) + body)
        answer = b""
        while not answer.endswith(b"\r\n0\r\n\r\n") and (block := user.recv(65536)):
            answer += block
        assert b"39 " in answer
        # And the next one on the same connection.
        user.sendall(head(site, len(body)) + body)
        assert b" 200 " in user.recv(100)


@pytest.mark.parametrize("is_stream", [True, False])
def test_user_who_does_not_read_the_answer_frees_the_slot(site: Site, is_stream: bool) -> None:
    body = json.dumps(question("long 4000000", stream=is_stream)).encode()
    with socket.socket() as user:
        user.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        user.connect(("127.0.0.1", site.port))
        user.sendall(head(site, len(body)) + body)
        assert eventually(lambda: site.gauge("slots_taken", "toy") == 1)
        assert eventually(lambda: site.gauge("slots_taken", "toy") == 0)
        assert site.ask("x")[0] == 200


def test_gateway_may_hold_what_a_thousand_connections_take(site: Site) -> None:
    child = site.process._child
    assert child is not None
    limits = Path(f"/proc/{child.program_pid}/limits").read_text()
    [soft, hard] = next(line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files"))
    assert int(soft) == min(DESCRIPTORS, int(hard))


def test_gateway_logs_no_warning(site: Site) -> None:
    assert site.log.read_text() == ""
