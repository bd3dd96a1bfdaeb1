"""The protocol between this program and a registry: blobs, manifests, and what refers to a manifest.

Owns the connection. It must never believe a registry: what it gives is bytes with a digest that somebody else named, or
bytes that somebody else will judge.

Rules (threats T6, T14):
- every answer has a limit that is known before, and reading stops one byte after it;
- a blob counts when it has the digest that was asked for; nothing is decompressed on the way;
- a redirection may lead to https only, or stay on this machine; credentials go to the registry and the place that it
  names for tokens, never further.

Source: OCI distribution specification 1.1; the token authentication of the distribution project.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import TracebackType
from typing import TypeVar

import httpx

from appliance.builder.registry.reference import Reference, may_connect
from bundles.oci.manifest import INDEX_TYPE, MANIFEST_TYPE, MAX_MANIFEST_BYTES
from signing.digest import Digest, sha256
from signing.errors import ApplianceError, DamagedError, NotTrustedError
from signing.strictjson import Json, load

T = TypeVar("T")
MAX_JSON_BYTES = 1 << 20
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
MOST_REDIRECTS = 5
_TOKEN = re.compile(r"[\x21-\x7e]+\Z")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class Registry:
    """A connection to one repository of a registry; a context manager that closes it.

    Args:
        reference: which one.
        login: user and password, or None.
        pushes: whether this connection will write.
    """

    def __init__(self, reference: Reference, login: tuple[str, str] | None = None, *, pushes: bool = False) -> None:
        self.reference = reference
        self._login = login
        self._scope = f"repository:{reference.repository}:pull{',push' if pushes else ''}"
        self._authorisation: dict[str, str] = {}
        # The machine's own settings for proxies are used, those for passwords (.netrc) are not.
        self._client = httpx.Client(
            timeout=TIMEOUT,
            auth=_no_netrc,
            follow_redirects=False,
            max_redirects=MOST_REDIRECTS,
            headers={"Accept-Encoding": "identity", "User-Agent": "airgap-appliance"},
        )

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def has_blob(self, digest: Digest, size: int) -> bool:
        """Whether the registry says that it holds a blob of this digest and size."""
        with self._ask("HEAD", f"/blobs/sha256:{digest}", missing=True) as answer:
            length = answer.headers.get("Content-Length", "")
            return answer.status_code == httpx.codes.OK and length == str(size)

    def put_blob(self, data: bytes, digest: Digest) -> bool:
        """Bring a blob, unless it is there.

        Args:
            data: of this digest; the caller has compared it.
            digest: its name.

        Returns:
            Whether it was sent.
        """
        if self.has_blob(digest, len(data)):
            return False
        with self._ask("POST", "/blobs/uploads/", body=b"") as answer:
            location = answer.headers.get("Location", "")
        base = httpx.URL(self.reference.base)
        url = self._told(lambda: base.join(location).copy_merge_params({"digest": f"sha256:{digest}"}))
        headers = {"Content-Type": "application/octet-stream"}
        with self._ask("PUT", str(url), body=data, headers=headers):
            return True

    def get_blob(self, digest: Digest, size: int) -> bytes:
        """The bytes of a blob.

        Args:
            digest: that somebody signed, or that a document names.
            size: in bytes, likewise.

        Raises:
            NotTrustedError: the registry gives more than `size` bytes.
            DamagedError: it gives fewer, or others, or none.
        """
        data = self._get(f"/blobs/sha256:{digest}", size)
        if data is None or len(data) < size or sha256(data) != digest:
            raise DamagedError(
                "registry.blob-differs",
                f"{self.reference} sha256:{digest}",
                expected=f"{size} bytes of this digest",
                found="no such blob" if data is None else f"{len(data)} bytes with sha256 {sha256(data)}",
                hint="export the bundle again",
            )
        return data

    def put_manifest(self, name: str, data: bytes, media_type: str = MANIFEST_TYPE) -> bool:
        """Bring a manifest or an index.

        Args:
            name: a tag, or its digest.
            data: its bytes.
            media_type: what it is.

        Returns:
            Whether the registry keeps a list of what refers to another manifest, and has put this one on it.
        """
        with self._ask("PUT", f"/manifests/{name}", body=data, headers={"Content-Type": media_type}) as answer:
            return "OCI-Subject" in answer.headers

    def get_manifest(self, name: str) -> bytes | None:
        """The bytes of a manifest or an index by tag or digest, of at most 4 MiB; None where there is none."""
        headers = {"Accept": f"{MANIFEST_TYPE}, {INDEX_TYPE}"}
        data = self._get(f"/manifests/{name}", MAX_MANIFEST_BYTES, headers)
        if data is not None and name.startswith("sha256:") and sha256(data) != name.removeprefix("sha256:"):
            raise self._hostile(f"a manifest of digest {name}", f"one with sha256 {sha256(data)}")
        return data

    def referrers(self, digest: Digest) -> list[Json]:
        """Descriptors of what says that it refers to a manifest, untrusted.

        From the registry's own list, else from the index under the tag that stands for it.
        """
        for path in (f"/referrers/sha256:{digest}", f"/manifests/{fallback_tag(digest)}"):
            data = self._get(path, MAX_JSON_BYTES, {"Accept": INDEX_TYPE})
            if data is None:
                continue
            value = load(data, f"{self.reference} referrers", MAX_JSON_BYTES)
            found = value.get("manifests") if isinstance(value, dict) else None
            if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
                raise self._hostile("an index of what refers to the bundle", "something else")
            if found:
                return found
        return []

    def _get(self, path: str, most: int, headers: dict[str, str] | None = None) -> bytes | None:
        with self._ask("GET", path, headers=headers, missing=True) as answer:
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            data = bytearray()
            for block in answer.iter_raw():
                data += block
                if len(data) > most:
                    raise self._hostile(f"at most {most} bytes for {path[:100]}", "more")
            return bytes(data)

    @contextmanager
    def _ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        missing: bool = False,
    ) -> Iterator[httpx.Response]:
        url = path if "://" in path else self.reference.base + path
        answer = self._told(lambda: self._send(method, url, body, headers or {}))
        try:
            if answer.is_success or (missing and answer.status_code == httpx.codes.NOT_FOUND):
                yield answer
                return
            self._fail(method, answer)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        finally:
            answer.close()

    def _told(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise self._unreachable(error) from None

    def _send(self, method: str, url: str, body: bytes | None, headers: dict[str, str]) -> httpx.Response:
        answer = self._once(method, url, body, headers)
        if answer.status_code == httpx.codes.UNAUTHORIZED and self._authorise(answer):
            answer.close()
            answer = self._once(method, url, body, headers)
        for _ in range(MOST_REDIRECTS):
            if answer.next_request is None:
                return answer
            target = answer.next_request.url
            answer.close()
            self._check(target)
            answer = self._once(method, str(target), body, headers)
        raise self._hostile(f"at most {MOST_REDIRECTS} redirections", "more")

    def _once(self, method: str, url: str, body: bytes | None, headers: dict[str, str]) -> httpx.Response:
        request = self._client.build_request(method, url, content=body, headers=headers)
        self._check(request.url)
        if request.url.netloc.decode() == self.reference.host:
            request.headers.update(self._authorisation)
        return self._client.send(request, stream=True)

    def _check(self, url: httpx.URL) -> None:
        if url.userinfo or not may_connect(url.scheme, url.host):
            raise self._hostile("https, or this machine", f"a way to {url.scheme}://{url.host}")

    def _authorise(self, answer: httpx.Response) -> bool:
        """Answer a registry's question who asks; False where there is no answer, or it was given already."""
        kind, _, rest = answer.headers.get("WWW-Authenticate", "").partition(" ")
        fields = dict(_CHALLENGE.findall(rest))
        basic = _basic(*self._login) if self._login else ""
        if kind.lower() == "basic" and basic and answer.request.headers.get("Authorization") != basic:
            self._authorisation = {"Authorization": basic}
            return True
        if kind.lower() != "bearer" or "realm" not in fields:
            return False
        self._authorisation = {"Authorization": f"Bearer {self._token(fields, basic)}"}
        return True

    def _token(self, fields: dict[str, str], basic: str) -> str:
        url = httpx.URL(fields["realm"], params={"service": fields.get("service", ""), "scope": self._scope})
        self._check(url)
        request = self._client.build_request("GET", url, headers={"Authorization": basic} if basic else {})
        with closing(self._client.send(request, stream=True)) as answer:
            data = b"".join(_at_most(answer, MAX_JSON_BYTES)) if answer.is_success else b"{}"
        value = load(data, "token", MAX_JSON_BYTES)
        token = value.get("token") or value.get("access_token") if isinstance(value, dict) else None
        if not isinstance(token, str) or not _TOKEN.match(token):
            raise self._denied("no token was given")
        return token

    def _fail(self, method: str, answer: httpx.Response) -> None:
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise self._denied(f"status {answer.status_code}")
        text = b"".join(_at_most(answer, 2000)).decode("utf-8", "replace")
        raise ApplianceError(
            "registry.failed",
            str(self.reference),
            expected=f"success of {method} {answer.request.url.path[:120]}",
            found=f"status {answer.status_code}: {text[:300]}".rstrip(": "),
            hint="run the same command again; it goes on where it stopped",
        )

    def _denied(self, found: str) -> ApplianceError:
        return ApplianceError(
            "registry.denied",
            str(self.reference),
            expected="to be let in",
            found=found,
            hint="name a file with the login: --credentials FILE, as `skopeo login --authfile FILE` writes it",
        )

    def _unreachable(self, error: Exception) -> ApplianceError:
        return ApplianceError(
            "registry.unreachable",
            str(self.reference),
            expected="a registry that answers",
            found=f"{type(error).__name__}: {error}"[:200],
            hint="run the same command again; it goes on where it stopped",
        )

    def _hostile(self, expected: str, found: str) -> NotTrustedError:
        return NotTrustedError("registry.hostile", str(self.reference), expected=expected, found=found)


def fallback_tag(digest: Digest) -> str:
    """The tag under which a registry without a list of referrers keeps one."""
    return f"sha256-{digest}"


def _at_most(answer: httpx.Response, most: int) -> Iterator[bytes]:
    left = most
    for block in answer.iter_raw():
        yield block[:left]
        left -= len(block)
        if left <= 0:
            return


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _no_netrc(request: httpx.Request) -> httpx.Request:
    return request
