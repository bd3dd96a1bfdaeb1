"""A target that names the whole URL is served like its path; one of another form is refused."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.appliance.serve.gateway.site import Site, opened, question


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="gateway-") as folder, opened(Path(folder), {"toy": 2}) as made:
        yield made


def send(site: Site, line: str, body: bytes = b"", key: str = "all") -> tuple[int, bytes, bytes]:
    """Send a request as it stands; give the status, the head and the body of its reply."""
    lines = [line, "Host: elsewhere", "Connection: close", f"Authorization: Bearer {site.keys.get(key, key)}"]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode()
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as user:
        user.sendall(head + body)
        reply = b"".join(iter(lambda: user.recv(65536), b""))
    head, _, body = reply.partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body


@pytest.mark.parametrize("base", ["http://x", "HTTP://127.0.0.1:8443", "http://[::1]:8443", "http://x:"])
def test_target_in_absolute_form_is_served_as_its_path(site: Site, base: str) -> None:
    status, _, body = send(site, f"GET {base}/v1/models?a=b HTTP/1.1")
    assert (status, [model["id"] for model in json.loads(body)["data"]]) == (200, ["toy"])
    assert json.loads(send(site, f"GET {base}/v1/mod%65ls/toy HTTP/1.1")[2])["id"] == "toy"
    assert send(site, f"GET {base}/v1/models HTTP/1.1", key="bad")[0] == 401
    assert send(site, f"GET {base}/nothing HTTP/1.1")[0] == 404


def test_chat_is_answered_at_a_whole_url(site: Site) -> None:
    said = json.dumps(question("abc")).encode()
    status, _, body = send(site, "POST http://x/v1/chat/completions HTTP/1.1", said)
    assert (status, json.loads(body)["choices"][0]["message"]["content"]) == (200, "cba")


def test_whole_url_without_a_path_is_the_page(site: Site) -> None:
    status, head, _ = send(site, "GET http://x HTTP/1.1")
    assert status == 200
    assert b"text/html" in head


@pytest.mark.parametrize(
    "line",
    [
        *("CONNECT x:443 HTTP/1.1", "OPTIONS * HTTP/1.1", "GET v1/models HTTP/1.1"),
        *("GET https://x/v1/models HTTP/1.1", "GET ftp://x/v1/models HTTP/1.1", "GET file:///etc/passwd HTTP/1.1"),
        *("GET http://ann@x/v1/models HTTP/1.1", "GET http:///v1/models HTTP/1.1", "GET http:/v1/models HTTP/1.1"),
        *("GET http://x:99999999/v1/models HTTP/1.1", "GET http://[::1/v1/models HTTP/1.1"),
    ],
)
def test_target_of_another_form_is_refused_in_words(site: Site, line: str) -> None:
    status, head, body = send(site, line)
    error = json.loads(body)["error"]
    assert (status, error["code"], error["type"]) == (400, "invalid_target", "invalid_request_error")
    assert b"cache-control: no-store" in head


def test_gateway_logs_nothing_of_it(site: Site) -> None:
    assert site.log.read_text() == ""
