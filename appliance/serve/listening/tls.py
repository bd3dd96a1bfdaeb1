"""TLS of the gateway: its context, and the exchange of certificates while it serves (threats T132, T133).

Owns which versions and suites are spoken. Rules:
- TLS 1.2 and 1.3, with suites that have forward secrecy and authenticate what they encrypt. No renegotiation and no
  compression;
- a changed file is checked as at the start. What is wrong is reported and changes nothing; what is right holds for
  connections from then on, and those that are open go on;
- with `client_ca`, a certificate that no authority of that file has issued ends the handshake. One that is missing is
  refused by `client_certificates`, which can say so in words;
- a handshake has `HANDSHAKE_S`, so that nobody holds a connection by beginning one.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from asyncio import sslproto
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any

from appliance.events import TLS_REFUSED, TLS_RELOADED, Event, OnEvent
from appliance.host.tls.files import CertificateFacts, TlsFiles
from signing.errors import UsageError

SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; those of version 1.3 are all of this kind."""
HANDSHAKE_S, SHUTDOWN_S = 10.0, 5.0
POLL_S = 1.0
READ_BYTES = 32 << 10
"""Of the buffer in which asyncio keeps what a connection has received. Its own choice is eight times as much."""


class TlsLoop(asyncio.SelectorEventLoop):
    """The event loop of a gateway: it bounds the time of handshakes."""

    async def create_server(self, *arguments: Any, **options: Any) -> asyncio.Server:
        """Listen; see asyncio."""
        if options.get("ssl") is not None:
            options |= {"ssl_handshake_timeout": HANDSHAKE_S, "ssl_shutdown_timeout": SHUTDOWN_S}
            # Python 3.10 has no such buffer, and does not look at this.
            sslproto.SSLProtocol.max_size = READ_BYTES  # type: ignore[attr-defined]
        return await super().create_server(*arguments, **options)


def run(serving: Coroutine[Any, Any, None]) -> None:
    """Run a gateway to its end in a `TlsLoop`; `asyncio.run` takes no loop of one's own before Python 3.11."""
    loop = TlsLoop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(serving)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        asyncio.set_event_loop(None)
        loop.close()


class LiveContext(ssl.SSLContext):
    """A context that stands for another one, which can be exchanged: each handshake takes the one of its moment."""

    current: ssl.SSLContext

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Begin a handshake with the context of this moment; see ssl."""
        return self.current.wrap_bio(*arguments, **options)


class TlsKeeper:
    """Makes the context of a gateway, and exchanges what is in it when the site's files change.

    Args:
        files: of the site.
        now: the clock, in UTC.
        on_event: called when files were exchanged or refused.

    Raises:
        UsageError: the files cannot serve; every reason is attached.
    """

    def __init__(self, files: TlsFiles, now: Callable[[], datetime], on_event: OnEvent) -> None:
        self._files, self._now, self._on_event = files, now, on_event
        self._wakened = asyncio.Event()
        self._seen = self._look()
        self.context = LiveContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.current = _make_context(files, now())

    def wake(self) -> None:
        """Look at the files now."""
        self._wakened.set()

    async def watch(self) -> None:
        """Follow the files until cancelled.

        They are taken when they have been the same in two looks: a key and its certificate change one after the other.
        """
        before = self._seen
        while True:
            is_wakened = await self._sleep()
            found = await asyncio.to_thread(self._look)
            if found != self._seen and (found == before or is_wakened):
                self._seen = found
                await self._reload()
            before = found

    async def _sleep(self) -> bool:
        try:
            await asyncio.wait_for(self._wakened.wait(), POLL_S)
        except asyncio.TimeoutError:
            return False
        self._wakened.clear()
        return True

    async def _reload(self) -> None:
        try:
            leaf = await asyncio.to_thread(self._take)
            until = f"{leaf.ends:%Y-%m-%dT%H:%M:%SZ}"
            self._on_event(Event(TLS_RELOADED, {"certificate": leaf.sha256, "until": until}))
        except UsageError as error:
            self._refuse(f"{error.subject}: {error.found}")
        except Exception as error:  # noqa: BLE001 - files that vanish meanwhile, or hold what no rule foresaw
            # The end of this task would be the end of every later renewal.
            self._refuse(f"site.yaml field tls: {type(error).__name__}")

    def _refuse(self, reason: str) -> None:
        self._on_event(Event(TLS_REFUSED, {"reason": _printable(reason)}))

    def _take(self) -> CertificateFacts:
        """Exchange the context, and give what its certificate states."""
        from appliance.host.tls.certificates import describe_certificate, read_certificates  # noqa: PLC0415 - without TLS, nothing loads X.509

        leaf = describe_certificate(read_certificates(Path(self._files.certificate))[0])
        self.context.current = _make_context(self._files, self._now())
        return leaf

    def _look(self) -> tuple[object, ...]:
        return tuple(_state(path) for path in self._files.to_json().values())


def _make_context(files: TlsFiles, now: datetime) -> ssl.SSLContext:
    """The context for connections from now on.

    Raises:
        UsageError: the files cannot serve.
    """
    from appliance.host.tls.certificates import require_usable  # noqa: PLC0415 - without TLS, nothing loads X.509

    require_usable(files, now)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(SUITES)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.certificate, files.key)
        if files.client_ca:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(files.client_ca)
    except (OSError, ssl.SSLError) as error:
        expected = "files that the TLS library takes"
        raise UsageError(
            "site.refused", "site.yaml field tls.certificate", expected=expected, found=_printable(str(error))
        ) from None
    return context


def _state(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)[:200]
