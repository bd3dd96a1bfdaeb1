"""The timeouts of connections hold under TLS, too: handshakes that do not end, silence, and answers nobody reads."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from appliance.host.tls.authority import AuthorityFolder
from tests.appliance.serve.gateway.site import Site, eventually, opened, question
from tests.certificates import files_of, make_folder

pytestmark = pytest.mark.ci
# The gateway as it is started, with shorter timeouts.
START = "from appliance.serve.listening import connection_timeouts as limit, tls; limit.IDLE_S = limit.STALLED_S = 1"
START += "; tls.HANDSHAKE_S = tls.SHUTDOWN_S = 1; from appliance.serve.gateway.server import main; main()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> AuthorityFolder:
    return make_folder(tmp_path_factory.mktemp("certificates") / "tls")


@pytest.fixture(scope="module")
def site(folder: AuthorityFolder) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="gateway-") as name:
        python = Path(name) / "python"
        python.write_text(f"#!/bin/sh\nshift 4\nexec {sys.executable} -I -B -c '{START}' \"$@\"\n")
        python.chmod(0o755)
        with opened(Path(name), {"toy": 1}, python, tls=files_of(folder)) as made:
            yield made


def connect(site: Site, folder: AuthorityFolder, plain: socket.socket | None = None) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(folder.authority))
    plain = plain or socket.create_connection(("127.0.0.1", site.port), timeout=20)
    return context.wrap_socket(plain, server_hostname="localhost")


def get(site: Site, folder: AuthorityFolder, path: str) -> tuple[int, str]:
    context = ssl.create_default_context(cafile=str(folder.authority))
    connection = http.client.HTTPSConnection("127.0.0.1", site.port, timeout=20, context=context)
    connection.request("GET", path)
    reply = connection.getresponse()
    status, body = reply.status, reply.read().decode()
    connection.close()
    return status, body


def slots_taken(site: Site, folder: AuthorityFolder) -> float:
    found = re.search(r'^appliance_slots_taken\{model="toy"\} (.*)$', get(site, folder, "/metrics")[1], re.MULTILINE)
    assert found is not None
    return float(found[1])


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_handshake_that_is_not_begun_or_not_ended_is_cut(site: Site, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as user:
        user.sendall(sent)
        assert user.recv(100) == b""


def test_many_handshakes_that_do_not_end_keep_nobody_away(site: Site, folder: AuthorityFolder) -> None:
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", site.port), timeout=20))
        assert get(site, folder, "/livez")[0] == 200


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"])
def test_connection_without_a_whole_request_is_closed(site: Site, folder: AuthorityFolder, sent: bytes) -> None:
    with connect(site, folder) as user:
        user.sendall(sent)
        assert user.recv(100) == b""


def test_request_that_comes_byte_by_byte_is_not_waited_for(site: Site, folder: AuthorityFolder) -> None:
    with connect(site, folder) as user:
        until = time.monotonic() + 10
        with pytest.raises(OSError):  # noqa: PT011 - reset, broken pipe or the end of TLS
            while time.monotonic() < until:
                user.sendall(b"G")
                time.sleep(0.2)


def test_user_who_does_not_read_the_answer_frees_the_slot(site: Site, folder: AuthorityFolder) -> None:
    body = json.dumps(question("long 4000000", stream=True)).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: x", f"authorization: Bearer {site.keys['all']}"]
    head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode()
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.settimeout(20)
    plain.connect(("127.0.0.1", site.port))
    with connect(site, folder, plain) as user:
        user.sendall(head + body)
        assert eventually(lambda: slots_taken(site, folder) == 1)
        assert eventually(lambda: slots_taken(site, folder) == 0, 40)


def test_gateway_logs_no_warning(site: Site) -> None:
    assert site.log.read_text() == ""
