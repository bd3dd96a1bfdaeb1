"""Downloads over HTTP to the builder's disk, and small answers that are kept in memory.

Owns how a download is continued, retried and stopped, and the errors of a source that cannot be had. It must never
decide whether bytes are the right ones: it hashes them, and the caller compares.

Rules:
- what began as https is never continued by a redirect to http;
- each byte is hashed while it is written; a partial file of an earlier run is hashed once, then continued by range;
- a body that is longer than expected is cut off one byte after its end, so that no server can fill the disk;
- a small answer has a limit that counts its decompressed bytes;
- three tries, with a pause in between, for what may pass: no connection, 429, 5xx, an early end. None for the rest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

from appliance.builder.cache.content_store import require_space
from appliance.builder.cache.partial_file import Partial
from appliance.builder.sources.http_client import (
    BrokenConnection,
    HttpClient,
    HttpStream,
    UndecodableBody,
    UnusableUrl,
    Url,
)
from bundles.progress import OnProgress, Progress, ignore
from signing.digest import Digest
from signing.errors import ApplianceError

MAX_TRIES = 3
MAX_REDIRECTS = 5
PAUSE_S = 0.5
MAX_ANSWER_BYTES = 64 << 20
"""Of what is kept in memory: the longest pages of package indexes take some 10 MiB."""

T = TypeVar("T")
_CREATING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Remote:
    """A file on a server.

    Args:
        url: where it is.
        subject: its name in errors; the URL is not shown, since it may hold a password of the index.
        headers: to send along, for example a token.
        size: in bytes, as the lock or the server states it; the download stops one byte after it.
        sha256: as the server states it; None where it states none.
    """

    url: str
    subject: str
    headers: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    sha256: Digest | None = None


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A small answer: the URL that it came from at last, its headers, its decompressed body and its character set."""

    url: Url
    headers: Mapping[str, str]
    body: bytes
    charset: str | None


class _TemporaryFailure(Exception):
    """A failure that another try may not meet."""


def client() -> HttpClient:
    """The HTTP client that all downloads of this process share."""
    with _CREATING:
        return _client()


def close() -> None:
    """End all connections; the next call to `client` reads the environment anew."""
    with _CREATING:
        if _client.cache_info().currsize:
            _client().close()
            _client.cache_clear()


@cache
def _client() -> HttpClient:
    return HttpClient()


def get(url: str, subject: str, headers: Mapping[str, str]) -> HttpAnswer:
    """Fetch a small answer, for example an index page, and keep it in memory.

    Args:
        url: absolute; redirects are followed.
        subject: its name in errors.
        headers: to send along.

    Raises:
        ApplianceError: unreachable, refused by the server, or too long an answer.
    """
    return _request("GET", url, subject, headers, follows_redirects=True)


def head(url: str, subject: str, headers: Mapping[str, str]) -> HttpAnswer:
    """Fetch the headers of a file. Only redirects within the same server are followed.

    Args:
        As `get`.

    Raises:
        ApplianceError: unreachable, or refused by the server.
    """
    for _ in range(MAX_REDIRECTS):
        answer = _request("HEAD", url, subject, headers, follows_redirects=False)
        location = answer.headers.get("Location", "")
        # Two slashes name another host, which must not get the headers of this one.
        if not location.startswith("/") or location.startswith("//"):
            return answer
        url = str(answer.url.join(location))
    raise _refused(subject, "an answer", f"{MAX_REDIRECTS} redirects in a row")


def _request(method: str, url: str, subject: str, headers: Mapping[str, str], *, follows_redirects: bool) -> HttpAnswer:
    def once() -> HttpAnswer:
        with client().send(method, url, headers=headers, follows_redirects=follows_redirects) as stream:
            _check_status(stream, subject)
            body = bytearray()
            for block in stream.decoded_blocks():
                body += block
                if len(body) > MAX_ANSWER_BYTES:
                    raise _refused(subject, f"at most {MAX_ANSWER_BYTES} bytes", "more")
            return HttpAnswer(stream.url, stream.headers, bytes(body), stream.charset)

    return _retry(once, subject)


def download(remote: Remote, partial: Path, on_progress: OnProgress = ignore) -> tuple[Digest, int]:
    """Fetch a file to `partial`, continuing what is there already.

    Args:
        remote: what to fetch.
        partial: held by the caller (`Cache.claim`).
        on_progress: called with bytes done.

    Returns:
        The digest and size of what lies in `partial` now. A size above `remote.size` means that there was more.

    Raises:
        ApplianceError: unreachable, refused by the server, or the disk is full; the partial file stays for later.
    """
    with Partial(partial) as sink:
        if remote.size is not None:
            require_space(partial.parent, remote.size - sink.size)
        _retry(lambda: _receive(remote, sink, on_progress), remote.subject)
        return sink.digest, sink.size


def _retry(act: Callable[[], T], subject: str) -> T:
    for attempt in range(1, MAX_TRIES + 1):
        try:
            return act()
        except UnusableUrl as error:
            raise _refused(subject, "a usable address", str(error)) from None
        except UndecodableBody as error:
            raise _refused(subject, "a body that is encoded as its headers state", str(error)) from None
        except BrokenConnection as error:
            reason = str(error) or error.kind
        except _TemporaryFailure as error:
            reason = str(error)
        if attempt < MAX_TRIES:
            time.sleep(PAUSE_S * 2 ** (attempt - 1))
    raise unreachable(subject, reason)


def _receive(remote: Remote, sink: Partial, on_progress: OnProgress) -> None:
    if remote.size is not None and sink.size == remote.size:
        return
    headers = dict(remote.headers)
    if sink.size:
        headers["Range"] = f"bytes={sink.size}-"
    with client().send("GET", remote.url, headers=headers, follows_redirects=True) as stream:
        if stream.status == 416:
            sink.restart()
            raise _TemporaryFailure("the server has no such range")
        _check_status(stream, remote.subject)
        if stream.status != 206 or not _continues(stream, sink.size):
            sink.restart()
        total = remote.size or _total(stream, sink.size)
        # In blocks as they arrive: collecting larger ones would lose the last one when the connection breaks.
        for block in stream.raw_blocks():
            sink.write(block[: _allowance(remote, sink)])
            on_progress(Progress(f"fetching {remote.subject}", sink.size, total))
            if remote.size is not None and sink.size > remote.size:
                return
    if sink.size < total:
        raise _TemporaryFailure(f"the answer ended after {sink.size} of {total} bytes")


def _allowance(remote: Remote, sink: Partial) -> int | None:
    return None if remote.size is None else remote.size + 1 - sink.size


def _continues(stream: HttpStream, offset: int) -> bool:
    return stream.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def _total(stream: HttpStream, offset: int) -> int:
    length = stream.headers.get("Content-Length", "")
    return offset + int(length) if length.isdecimal() else 0


def _check_status(stream: HttpStream, subject: str) -> None:
    hops = [*stream.followed, stream.url]
    if hops[0].scheme == "https" and any(url.scheme != "https" for url in hops):
        raise _refused(subject, "https all the way", "a redirect to plain http")
    status = stream.status
    if status == 429 or status >= 500:
        raise _TemporaryFailure(f"the server answered {status}")
    if status in (404, 410):
        raise ApplianceError(
            "source.gone",
            subject,
            expected="the file where it was",
            found=f"the server answered {status}",
            hint="check its name; when upstream has removed it: appliance lock --upgrade RECIPE",
        )
    if not (stream.is_success or stream.redirect):
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
