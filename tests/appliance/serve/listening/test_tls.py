"""TLS of the gateway, asked by `openssl s_client` and by Python's own client: versions, suites, chain, exchange."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from asyncio import sslproto
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from appliance.events import TLS_REFUSED, TLS_RELOADED, Event
from appliance.host.tls.authority import AuthorityFolder, issue_client, renew_certificate
from appliance.host.tls.local_connection import connect_locally
from appliance.serve.listening import tls
from appliance.serve.listening.tls import TlsKeeper
from tests.appliance.serve.gateway.site import Site, eventually, opened, question
from tests.certificates import NOW, OTHER_CURVE, files_of, make_folder

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the program openssl")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> AuthorityFolder:
    return make_folder(tmp_path_factory.mktemp("certificates") / "tls")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, folder: AuthorityFolder) -> Iterator[Site]:
    with opened(tmp_path_factory.mktemp("site"), {"toy": 2}, tls=files_of(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, folder: AuthorityFolder) -> Iterator[Site]:
    """A site that wants certificates of its users."""
    with opened(tmp_path_factory.mktemp("guarded"), {"toy": 2}, tls=files_of(folder, client_ca=True)) as running:
        yield running


def s_client(port: int, *options: str, sent: str = "Q\n") -> str:
    words = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", *options]
    done = subprocess.run(words, input=sent, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout + done.stderr


def trusting(folder: AuthorityFolder, pair: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder.authority))
    if pair is not None:
        context.load_cert_chain(*pair)
    return context


def ask(site: Site, context: ssl.SSLContext, path: str = "/v1/models", host: str = "127.0.0.1") -> tuple[int, str]:
    connection = http.client.HTTPSConnection(host, site.port, timeout=10, context=context)
    try:
        connection.request("GET", path, headers={"authorization": f"Bearer {site.keys['all']}"})
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


def served(port: int) -> bytes:
    """The certificate that the gateway shows now."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 10) as plain, context.wrap_socket(plain) as connection:
        return connection.getpeercert(binary_form=True) or b""


@pytest.mark.parametrize("option", ["-tls1_2", "-tls1_3"])
def test_current_versions_are_spoken_and_the_chain_verifies(site: Site, folder: AuthorityFolder, option: str) -> None:
    said = s_client(site.port, option, "-CAfile", str(folder.authority), "-verify_return_error")
    assert "Verify return code: 0 (ok)" in said, said
    assert re.search(r"Cipher is (TLS_|ECDHE-)", said), said
    assert "Server Temp Key: X25519" in said
    assert "Compression: NONE" in said


@pytest.mark.parametrize("option", ["-tls1_1", "-tls1"])
def test_old_versions_are_refused(site: Site, option: str) -> None:
    said = s_client(site.port, option, "-cipher", "ALL:@SECLEVEL=0")
    assert "Cipher is (NONE)" in said, said


@pytest.mark.parametrize(
    "suites",
    [
        "AES128-GCM-SHA256:AES256-SHA",
        "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA",
        "aNULL:eNULL",
        "DHE:PSK",
        "3DES:RC4",
    ],
)
def test_suites_without_forward_secrecy_or_authenticated_encryption_are_refused(site: Site, suites: str) -> None:
    said = s_client(site.port, "-tls1_2", "-cipher", f"{suites}:@SECLEVEL=0")
    assert "Cipher is (NONE)" in said or "no cipher match" in said, said


@pytest.mark.parametrize("suite", ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"])
def test_good_suites_of_version_1_2_are_spoken(site: Site, suite: str) -> None:
    assert f"Cipher is {suite}" in s_client(site.port, "-tls1_2", "-cipher", suite)


def test_renegotiation_is_refused(site: Site) -> None:
    said = s_client(site.port, "-tls1_2", sent="R\nQ\n")
    assert "RENEGOTIATING" in said
    assert "no renegotiation" in said, said


def test_plain_http_gets_no_answer_on_the_port_of_tls(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port), 10) as plain:
        plain.sendall(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"HTTP/1.1 200" not in plain.recv(4096)


def test_client_that_trusts_the_authority_is_served_by_name_and_by_address(site: Site, folder: AuthorityFolder) -> None:
    for host in ("localhost", "127.0.0.1"):
        status, body = ask(site, trusting(folder), host=host)
        assert (status, json.loads(body)["data"][0]["id"]) == (200, "toy")
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(site, ssl.create_default_context())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="its asyncio has no such buffer")
def test_connection_takes_a_small_buffer_and_a_long_body_arrives(site: Site, folder: AuthorityFolder) -> None:
    async def listen() -> None:
        context = TlsKeeper(files_of(folder), lambda: NOW, lambda _: None).context
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=context)
        server.close()

    tls.run(listen())
    assert sslproto.SSLProtocol.max_size == tls.READ_BYTES  # type: ignore[attr-defined]
    connection = http.client.HTTPSConnection("127.0.0.1", site.port, timeout=20, context=trusting(folder))
    body = json.dumps(question("x" * 1_000_000))
    connection.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {site.keys['all']}"})
    assert json.loads(connection.getresponse().read())["error"]["code"] == "context_length_exceeded"
    connection.close()


def test_openai_client_needs_nothing_but_the_file_of_the_authority(
    site: Site, folder: AuthorityFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(folder.authority))
    url = f"https://localhost:{site.port}/v1"
    with openai.OpenAI(base_url=url, api_key=site.keys["all"], max_retries=0, timeout=20) as client:
        assert [model.id for model in client.models.list()] == ["toy"]


def test_no_reply_orders_browsers_to_use_tls_for_ever(site: Site, folder: AuthorityFolder) -> None:
    connection = http.client.HTTPSConnection("127.0.0.1", site.port, timeout=10, context=trusting(folder))
    connection.request("GET", "/livez")
    assert connection.getresponse().getheader("strict-transport-security") is None
    connection.close()


def test_own_check_of_health_trusts_the_certificate_of_the_site_and_no_other(
    site: Site, folder: AuthorityFolder, tmp_path: Path
) -> None:
    connection = connect_locally("0.0.0.0", site.port, files_of(folder), 10)
    connection.request("GET", "/readyz")
    assert connection.getresponse().status == 200
    connection.close()
    other = make_folder(tmp_path / "tls")
    wrong = connect_locally("127.0.0.1", site.port, files_of(other), 10)
    with pytest.raises(ssl.SSLCertVerificationError):
        wrong.request("GET", "/readyz")
    wrong.close()


def test_handshake_that_does_not_end_is_cut(folder: AuthorityFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_S", 0.2)
    keeper = TlsKeeper(files_of(folder), lambda: NOW, lambda _: None)
    found: list[bytes] = []

    async def begin_one() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=keeper.context)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"\x16\x03")  # the beginning of a record, and no more
        found.append(await asyncio.wait_for(reader.read(), 10))
        writer.close()
        server.close()

    tls.run(begin_one())
    assert found == [b""]


def test_files_are_followed_and_wrong_ones_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "POLL_S", 0.01)
    folder, events = make_folder(tmp_path / "tls"), list[Event]()
    keeper = TlsKeeper(files_of(folder), lambda: NOW, events.append)
    first, make_context = keeper.context.current, tls._make_context

    async def change() -> None:
        watching = asyncio.create_task(keeper.watch())
        shutil.copyfile(make_folder(tmp_path / "other").key, folder.key)
        while not events:
            await asyncio.sleep(0.01)
        assert keeper.context.current is first
        folder.certificate.write_text(OTHER_CURVE)
        while len(events) < 2:
            await asyncio.sleep(0.01)
        monkeypatch.setattr(tls, "_make_context", lambda *_: 1 // 0)
        make_folder(tmp_path / "third").certificate.replace(folder.certificate)
        while len(events) < 3:
            await asyncio.sleep(0.01)
        monkeypatch.setattr(tls, "_make_context", make_context)
        assert keeper.context.current is first
        renewed = renew_certificate(folder, None, 30, NOW, new_key=True)
        while len(events) < 4:
            await asyncio.sleep(0.01)
        assert keeper.context.current is not first
        assert events[3].fields["certificate"] == renewed.sha256
        watching.cancel()

    asyncio.run(asyncio.wait_for(change(), 20))
    assert [event.kind for event in events] == [TLS_REFUSED] * 3 + [TLS_RELOADED]
    assert "another key" in str(events[0].fields["reason"])


@pytest.mark.ci
def test_renewed_certificate_is_taken_while_a_stream_goes_on(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "tls")
    with opened(tmp_path, {"toy": 1}, tls=files_of(folder)) as site:
        before = served(site.port)
        connection = http.client.HTTPSConnection("127.0.0.1", site.port, timeout=20, context=trusting(folder))
        body = json.dumps(question("slow 40", stream=True))
        connection.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {site.keys['all']}"})
        reply = connection.getresponse()
        assert reply.status == 200
        first = reply.read(1)
        renew_certificate(folder, None, 30, NOW, new_key=True)
        assert site.process._child is not None
        os.kill(site.process._child.program_pid or 0, signal.SIGHUP)
        assert eventually(lambda: served(site.port) != before)
        assert (first + reply.read()).rstrip().endswith(b"data: [DONE]")
        connection.close()
        assert ask(site, trusting(folder))[0] == 200


def test_certificate_of_the_user_is_required_beside_the_key(guarded: Site, folder: AuthorityFolder) -> None:
    pair = issue_client(folder, "ada", 30, NOW)[:2]
    assert ask(guarded, trusting(folder, pair))[0] == 200
    for path in ("/v1/models", "/", "/metrics", "/nothing"):
        status, body = ask(guarded, trusting(folder), path)
        assert (status, json.loads(body)["error"]["code"]) == (403, "client_certificate_required")
    # This machine's own checks have none.
    assert ask(guarded, trusting(folder), "/readyz")[0] == 200


def test_foreign_certificate_of_a_user_ends_the_handshake(
    guarded: Site, folder: AuthorityFolder, tmp_path: Path
) -> None:
    other = make_folder(tmp_path / "tls")
    foreign = issue_client(other, "eve", 30, NOW)[:2]
    server = (folder.certificate, folder.key)  # of the right authority, and for servers alone
    for pair in (foreign, server):
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            ask(guarded, trusting(folder, pair))
