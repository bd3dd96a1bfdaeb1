"""Bringing bytes over HTTP to the disk of the builder.

Owns the one HTTP client of the build half, how a download is continued, tried again and stopped, and what its failures
are called. It must never decide whether bytes are the right ones: it hashes them, and the caller compares.

Rules:
- TLS is checked against the certificates of the system (SSL_CERT_FILE is honoured), never switched off;
- what began as https is never continued by a redirect to http;
- each byte is hashed while it is written; a partial file of an earlier run is hashed once, then continued by range;
- a body longer than expected is cut off one byte after it, so that no server can fill the disk; a small answer has a
  limit, however it is packed;
- three tries with a pause in between for what may pass (no connection, 429, 5xx, an early end), none for the rest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from appliance.builder.cache.content_store import require_space
from appliance.builder.cache.partial_file import Partial
from bundles.progress import OnProgress, Progress, ignore
from signing.digest import Digest
from signing.errors import ApplianceError

if TYPE_CHECKING:  # a build whose cache is warm asks no network, and httpx takes a tenth of a second to load
    import httpx

TRIES = 3
MAX_HOPS = 5
PAUSE_S = 0.5
TIMEOUT_S = 30.0
AGENT = "airgap-appliance"
MAX_ANSWER_BYTES = 64 << 20
"""Of what is kept in memory: the longest pages of package indexes take some 10 MiB."""

T = TypeVar("T")
_MAKING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Remote:
    """A file somewhere else.

    Args:
        url: where it is.
        subject: what people call it; the URL is not shown, since it may hold a password of the index.
        headers: to send along, for example a token.
        size: in bytes, where the lock or the server says so; the download stops one byte after it.
        sha256: what the server says it is; None where it says nothing.
    """

    url: str
    subject: str
    headers: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    sha256: Digest | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """A small answer: where it came from at last, what was said about it, and its bytes."""

    url: httpx.URL
    headers: httpx.Headers
    body: bytes
    charset: str | None


class _Again(Exception):
    """A failure that may pass."""


def client() -> httpx.Client:
    """The HTTP client of this process: one pool of connections, proxies from the environment."""
    with _MAKING:
        return _client()


def close() -> None:
    """End all connections; the next call to `client` reads the environment and the certificates anew."""
    with _MAKING:
        _client().close()
        _client.cache_clear()


@cache
def _client() -> httpx.Client:
    import ssl

    import httpx

    return httpx.Client(
        verify=ssl.create_default_context(),
        follow_redirects=True,
        timeout=TIMEOUT_S,
        headers={"User-Agent": AGENT, "Accept-Encoding": "identity"},
    )


def get(url: str, subject: str, headers: Mapping[str, str]) -> Said:
    """Ask for a small answer, for example an index page, and keep it in memory.

    Raises:
        ApplianceError: unreachable, refused by the server, or too long an answer.
    """

    return _ask("GET", url, subject, headers, follow=True)


def head(url: str, subject: str, headers: Mapping[str, str]) -> Said:
    """Ask what a server says about a file. Only redirects within that server are followed.

    Raises:
        ApplianceError: unreachable, or refused by the server.
    """
    for _ in range(MAX_HOPS):
        said = _ask("HEAD", url, subject, headers, follow=False)
        location = said.headers.get("Location", "")
        # Two slashes name another host, which must not get the headers of this one.
        if not location.startswith("/") or location.startswith("//"):
            return said
        url = str(said.url.join(location))
    raise _refused(subject, "an answer", f"{MAX_HOPS} redirects in a row")


def _ask(method: str, url: str, subject: str, headers: Mapping[str, str], *, follow: bool) -> Said:
    def once() -> Said:
        with client().stream(method, url, headers=dict(headers), follow_redirects=follow) as response:
            _check_status(response, subject)
            body = bytearray()
            for block in response.iter_bytes():
                body += block
                if len(body) > MAX_ANSWER_BYTES:
                    raise _refused(subject, f"at most {MAX_ANSWER_BYTES} bytes", "more")
            return Said(response.url, response.headers, bytes(body), response.charset_encoding)

    return _try(once, subject)


def download(remote: Remote, partial: Path, on_progress: OnProgress = ignore) -> tuple[Digest, int]:
    """Bring a file to `partial`, continuing what is there already.

    Args:
        remote: what to bring.
        partial: held by the caller (`Cache.claim`).
        on_progress: told about bytes.

    Returns:
        The digest and size of what lies in `partial` now. A size above `remote.size` means that there was more.

    Raises:
        ApplianceError: unreachable, refused by the server, or the disk is full; the partial file stays for later.
    """
    with Partial(partial) as sink:
        if remote.size is not None:
            require_space(partial.parent, remote.size - sink.size)
        _try(lambda: _receive(remote, sink, on_progress), remote.subject)
        return sink.digest, sink.size


def _try(act: Callable[[], T], subject: str) -> T:
    import httpx

    for attempt in range(1, TRIES + 1):
        try:
            return act()
        # A host name that has no spelling in ASCII is a UnicodeError, of whichever library meets it first.
        except (httpx.TooManyRedirects, httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            raise _refused(subject, "a usable address", str(error)) from None
        except httpx.DecodingError as error:
            raise _refused(subject, "an answer that is packed as it says", str(error)) from None
        except (httpx.TransportError, _Again) as error:
            reason = str(error) or type(error).__name__
        if attempt < TRIES:
            time.sleep(PAUSE_S * 2 ** (attempt - 1))
    raise unreachable(subject, reason)


def _receive(remote: Remote, sink: Partial, on_progress: OnProgress) -> None:
    if remote.size is not None and sink.size == remote.size:
        return
    headers = dict(remote.headers)
    if sink.size:
        headers["Range"] = f"bytes={sink.size}-"
    with client().stream("GET", remote.url, headers=headers) as response:
        if response.status_code == 416:
            sink.restart()
            raise _Again("the server has no such range")
        _check_status(response, remote.subject)
        if response.status_code != 206 or not _continues(response, sink.size):
            sink.restart()
        total = remote.size or _total(response, sink.size)
        # As the network brings it: gathering larger blocks would lose the last one when the connection breaks.
        for block in response.iter_raw():
            sink.write(block[: _allowance(remote, sink)])
            on_progress(Progress(f"fetching {remote.subject}", sink.size, total))
            if remote.size is not None and sink.size > remote.size:
                return
    if sink.size < total:
        raise _Again(f"the answer ended after {sink.size} of {total} bytes")


def _allowance(remote: Remote, sink: Partial) -> int | None:
    return None if remote.size is None else remote.size + 1 - sink.size


def _continues(response: httpx.Response, offset: int) -> bool:
    return str(response.headers.get("Content-Range", "")).startswith(f"bytes {offset}-")


def _total(response: httpx.Response, offset: int) -> int:
    length = response.headers.get("Content-Length", "")
    return offset + int(length) if length.isdecimal() else 0


def _check_status(response: httpx.Response, subject: str) -> None:
    hops = [*response.history, response]
    if hops[0].url.scheme == "https" and any(hop.url.scheme != "https" for hop in hops):
        raise _refused(subject, "https all the way", "a redirect to plain http")
    status = response.status_code
    if status == 429 or status >= 500:
        raise _Again(f"the server answered {status}")
    if status in (404, 410):
        raise ApplianceError(
            "source.gone",
            subject,
            expected="the file where it was",
            found=f"the server answered {status}",
            hint="check its name; when upstream has removed it: appliance lock --upgrade RECIPE",
        )
    if not (response.is_success or response.has_redirect_location):
        raise ApplianceError(
            "source.refused",
            subject,
            expected="the file",
            found=f"the server answered {status}",
            hint="it may want a login or the acceptance of its licence; see the page of the model or of your index",
        )


def _refused(subject: str, expected: str, found: str) -> ApplianceError:
    return ApplianceError("source.refused", subject, expected=expected, found=found)


def unreachable(subject: str, reason: str) -> ApplianceError:
    """The error for a source that no network leads to."""
    return ApplianceError(
        "source.unreachable",
        subject,
        expected="a network that reaches its source",
        found=reason,
        hint="run this where there is a network, or copy a filled cache here (AIRGAP_APPLIANCE_CACHE names its folder)",
    )
