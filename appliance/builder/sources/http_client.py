"""HTTP connections of the builder: the only module that imports httpx.

Owns TLS, proxies, the parsing of URLs, and which kinds of failure there are. It must never judge an answer: callers
check its status, size and digest.

Rules:
- TLS certificates are checked against those of the system (SSL_CERT_FILE is honoured), and nothing switches this off;
- proxies come from the environment, credentials never do: no .netrc is read;
- a `Url` is parsed once, so that what a caller has checked is what is connected to;
- a body is streamed, and the caller sets its limit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a build whose cache is warm needs no network, and httpx takes a tenth of a second to load
    import ssl

    import httpx

AGENT = "airgap-appliance"
TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0


class HttpFailure(Exception):
    """A request without a usable answer.

    Args:
        error: of httpx; its text becomes this one's.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.kind = type(error).__name__


class UnusableUrl(HttpFailure):
    """No URL of HTTP, or one whose redirects never end."""


class UndecodableBody(HttpFailure):
    """A body that is not encoded as its headers state."""


class BrokenConnection(HttpFailure):
    """No connection, or one that broke. Another try may succeed."""


@dataclass(frozen=True, slots=True)
class Url:
    """An absolute URL as httpx has parsed it."""

    _parsed: httpx.URL

    def __str__(self) -> str:
        return str(self._parsed)

    @property
    def scheme(self) -> str:
        """For example `https`."""
        return self._parsed.scheme

    @property
    def host(self) -> str:
        """The host without its port.

        Raises:
            UnusableUrl: its name is no internationalized domain name (IDNA), although it claims to be one.
        """
        with _own_failures():
            return self._parsed.host

    @property
    def host_and_port(self) -> str:
        """The host, with its port unless that is the scheme's own."""
        return self._parsed.netloc.decode("ascii")

    @property
    def path(self) -> str:
        """The path without the query."""
        return self._parsed.path

    @property
    def has_credentials(self) -> bool:
        """Whether a user or a password stands before the host."""
        return bool(self._parsed.userinfo)

    def join(self, reference: str) -> Url:
        """The URL that a reference names, relative to this one.

        Raises:
            UnusableUrl: it names none.
        """
        with _own_failures():
            return Url(self._parsed.join(reference))

    def with_query(self, fields: Mapping[str, str]) -> Url:
        """This URL with further fields in its query; a field that is there already is replaced."""
        return Url(self._parsed.copy_merge_params(dict(fields)))


def parse_url(text: str) -> Url:
    """Parse an absolute URL.

    Raises:
        UnusableUrl: it is none.
    """
    import httpx

    with _own_failures():
        return Url(httpx.URL(text))


@dataclass(frozen=True, slots=True)
class HttpStream:
    """An answer whose body is still to be read; a context manager that closes it."""

    _response: httpx.Response

    def __enter__(self) -> HttpStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def status(self) -> int:
        """For example 404."""
        return self._response.status_code

    @property
    def is_success(self) -> bool:
        """Whether the status is one of 200 to 299."""
        return self._response.is_success

    @property
    def url(self) -> Url:
        """Of the request that was answered, after all redirects that were followed."""
        return Url(self._response.url)

    @property
    def followed(self) -> tuple[Url, ...]:
        """The URLs whose redirects led here, in order."""
        return tuple(Url(response.url) for response in self._response.history)

    @property
    def redirect(self) -> Url | None:
        """Where a redirect leads that was not followed; None where the answer is no redirect."""
        request = self._response.next_request
        return Url(request.url) if request else None

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; names are compared without regard to case."""
        return self._response.headers

    @property
    def request_headers(self) -> Mapping[str, str]:
        """The headers of the request that was answered."""
        return self._response.request.headers

    @property
    def charset(self) -> str | None:
        """The character set that the headers name."""
        return self._response.charset_encoding

    def raw_blocks(self) -> Iterator[bytes]:
        """The body as it arrives.

        Raises:
            HttpFailure: the connection broke.
        """
        with _own_failures():
            yield from self._response.iter_raw()

    def decoded_blocks(self) -> Iterator[bytes]:
        """The body as it arrives, decompressed.

        Raises:
            HttpFailure: the connection broke, or the body cannot be decompressed.
        """
        with _own_failures():
            yield from self._response.iter_bytes()

    def close(self) -> None:
        """Give up what is left of the body."""
        self._response.close()


@cache
def _tls_context(certificates: str | None, folder: str | None) -> ssl.SSLContext:
    """The checks of TLS, with the certificates that the environment names.

    Each context reads all certificates of the system, which takes 40 ms, and a program makes several clients. The
    arguments are the key of the cache only: OpenSSL reads the environment itself.
    """
    import ssl

    return ssl.create_default_context()


class HttpClient:
    """A pool of connections, safe to share between threads.

    Args:
        connect_timeout_s: how long a connection may take to open; every other wait ends after `TIMEOUT_S`.
    """

    def __init__(self, connect_timeout_s: float = TIMEOUT_S) -> None:
        import httpx

        self._client = httpx.Client(
            verify=_tls_context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")),
            timeout=httpx.Timeout(TIMEOUT_S, connect=connect_timeout_s),
            headers={"User-Agent": AGENT, "Accept-Encoding": "identity"},
        )

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def send(
        self,
        method: str,
        url: Url | str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        follows_redirects: bool = False,
    ) -> HttpStream:
        """Send a request. The caller closes the answer.

        Args:
            method: for example `GET`.
            url: absolute.
            headers: beside those of every request.
            body: what is sent with it.
            follows_redirects: whether an answer that names another place is followed there.

        Raises:
            HttpFailure: no connection, no URL, or redirects without end.
        """
        parsed = url._parsed if isinstance(url, Url) else url
        with _own_failures():
            request = self._client.build_request(method, parsed, content=body, headers=dict(headers))
            return HttpStream(self._client.send(request, stream=True, follow_redirects=follows_redirects))


@contextmanager
def _own_failures() -> Iterator[None]:
    import httpx

    try:
        yield
    # A host name that ASCII cannot express is a UnicodeError, from the first library that meets it.
    except (httpx.TooManyRedirects, httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
        raise UnusableUrl(error) from None
    except httpx.DecodingError as error:
        raise UndecodableBody(error) from None
    except httpx.TransportError as error:
        raise BrokenConnection(error) from None
