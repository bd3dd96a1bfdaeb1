"""Requests to one repository of a registry: authentication, redirects, and their failures.

Owns who may receive credentials and where a request may go. It must never judge the body of an answer.

Rules (threats T6, T14):
- requests and redirects lead to https, or stay on this machine;
- credentials go to the registry, and to the place that the registry itself names for tokens, never further;
- the body of a token or of an error has a limit, and reading stops there.

Source: the token authentication of the distribution project.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager

from appliance.builder.registry.reference import Reference, may_connect
from appliance.builder.sources.http_client import CONNECT_TIMEOUT_S, HttpClient, HttpFailure, HttpStream, Url, parse_url
from signing.errors import ApplianceError, NotTrustedError
from signing.strictjson import load

MAX_TOKEN_BYTES = 1 << 20
MAX_ERROR_BYTES = 2000
MAX_REDIRECTS = 5
UNAUTHORIZED, FORBIDDEN, NOT_FOUND = 401, 403, 404
_TOKEN = re.compile(r"[\x21-\x7e]+\Z")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_CONTINUE_HINT = "run the same command again; it goes on where it stopped"


class RegistrySession:
    """Authenticated requests to one repository.

    Args:
        reference: the repository.
        login: user and password, or None.
        pushes: whether the token must allow writing.
    """

    def __init__(self, reference: Reference, login: tuple[str, str] | None, *, pushes: bool) -> None:
        self.reference = reference
        self._basic = _basic(*login) if login else ""
        self._scope = f"repository:{reference.repository}:pull{',push' if pushes else ''}"
        self._authorization = ""
        self._client = HttpClient(CONNECT_TIMEOUT_S)

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def resolve(self, location: str, query: dict[str, str]) -> Url:
        """The URL of a `Location` header, with further fields in its query.

        Args:
            location: from the registry, untrusted.
            query: fields by name.

        Raises:
            ApplianceError: the header holds no URL.
        """
        with self._reported():
            return self._base().join(location).with_query(query)

    @contextmanager
    def request(
        self,
        method: str,
        place: str | Url,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        allows_missing: bool = False,
    ) -> Iterator[HttpStream]:
        """Send a request, and give its answer of success to the block.

        Args:
            method: for example `GET`.
            place: a path below the repository, or a URL of `resolve`.
            body: what is sent with it.
            headers: beside those of every request.
            allows_missing: whether an answer of 404 is given to the block, too.

        Raises:
            NotTrustedError: a redirect leads where no request may go, or there are too many.
            ApplianceError: the registry cannot be reached, refuses the login, or answers with another status.
        """
        with self._reported():
            url = parse_url(self.reference.base + place) if isinstance(place, str) else place
            with self._answer(method, url, body, headers or {}) as stream:
                if not stream.is_success and not (allows_missing and stream.status == NOT_FOUND):
                    raise self._failed(method, stream)
                yield stream

    def hostile(self, expected: str, found: str) -> NotTrustedError:
        """The error for an answer that no honest registry gives."""
        return NotTrustedError("registry.hostile", str(self.reference), expected=expected, found=found)

    def _base(self) -> Url:
        return parse_url(self.reference.base)

    def _answer(self, method: str, url: Url, body: bytes | None, headers: dict[str, str]) -> HttpStream:
        stream = self._send(method, url, body, headers)
        if stream.status == UNAUTHORIZED and self._authorize(stream):
            stream.close()
            stream = self._send(method, url, body, headers)
        for _ in range(MAX_REDIRECTS):
            if stream.redirect is None:
                return stream
            stream.close()
            stream = self._send(method, stream.redirect, body, headers)
        stream.close()
        raise self.hostile(f"at most {MAX_REDIRECTS} redirections", "more")

    def _send(self, method: str, url: Url, body: bytes | None, headers: dict[str, str]) -> HttpStream:
        self._check(url)
        if self._authorization and self._is_registry(url):
            headers = {**headers, "Authorization": self._authorization}
        return self._client.send(method, url, headers=headers, body=body)

    def _check(self, url: Url) -> None:
        if url.has_credentials or not may_connect(url.scheme, url.host):
            raise self.hostile("https, or this machine", f"a way to {url.scheme}://{url.host}")

    def _is_registry(self, url: Url) -> bool:
        return url.host_and_port == self._base().host_and_port

    def _authorize(self, stream: HttpStream) -> bool:
        """Take up the registry's challenge; False where another request would be refused, too."""
        if not self._is_registry(stream.url):
            return False
        kind, _, rest = stream.headers.get("WWW-Authenticate", "").partition(" ")
        fields = dict(_CHALLENGE.findall(rest))
        # As it was sent: another thread may have authorized this session since.
        sent = stream.request_headers.get("Authorization")
        if kind.lower() == "basic" and self._basic and sent != self._basic:
            self._authorization = self._basic
            return True
        if kind.lower() != "bearer" or "realm" not in fields:
            return False
        self._authorization = f"Bearer {self._token(fields)}"
        return True

    def _token(self, fields: dict[str, str]) -> str:
        url = parse_url(fields["realm"]).with_query({"service": fields.get("service", ""), "scope": self._scope})
        self._check(url)
        headers = {"Authorization": self._basic} if self._basic else {}
        with self._client.send("GET", url, headers=headers) as stream:
            data = _read_at_most(stream, MAX_TOKEN_BYTES) if stream.is_success else b"{}"
        value = load(data, "token", MAX_TOKEN_BYTES)
        token = value.get("token") or value.get("access_token") if isinstance(value, dict) else None
        if not isinstance(token, str) or not _TOKEN.match(token):
            raise self._denied("no token was given")
        return token

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except HttpFailure as error:
            raise ApplianceError(
                "registry.unreachable",
                str(self.reference),
                expected="a registry that answers",
                found=f"{error.kind}: {error}"[:200],
                hint=f"check the address and the network; then {_CONTINUE_HINT}",
            ) from None

    def _failed(self, method: str, stream: HttpStream) -> ApplianceError:
        if stream.status in (UNAUTHORIZED, FORBIDDEN):
            return self._denied(f"status {stream.status}")
        text = _read_at_most(stream, MAX_ERROR_BYTES).decode("utf-8", "replace")
        return ApplianceError(
            "registry.failed",
            str(self.reference),
            expected=f"success of {method} {stream.url.path[:120]}",
            found=f"status {stream.status}: {text[:300]}".rstrip(": "),
            hint=_CONTINUE_HINT,
        )

    def _denied(self, found: str) -> ApplianceError:
        return ApplianceError(
            "registry.denied",
            str(self.reference),
            expected="to be let in",
            found=found,
            hint="name a file with the login: --credentials FILE, as `skopeo login --authfile FILE` writes it",
        )


def _read_at_most(stream: HttpStream, max_bytes: int) -> bytes:
    data = bytearray()
    for block in stream.raw_blocks():
        data += block
        if len(data) >= max_bytes:
            break
    return bytes(data[:max_bytes])


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
