"""The distribution protocol of OCI: blobs, manifests, and the referrers of a manifest.

Owns which request serves which purpose, and the comparison of bytes with their digests. A registry has no authority:
its bytes have a digest that somebody else named, or somebody else will verify them.

Rules (threats T6, T14):
- every answer has a limit that is known before, and reading stops one byte after it;
- a blob counts when it has the digest that was asked for; nothing is decompressed on the way.

Source: OCI distribution specification 1.1.
"""

from __future__ import annotations

from types import TracebackType

from appliance.builder.registry.reference import Reference
from appliance.builder.registry.session import NOT_FOUND, RegistrySession
from bundles.oci.manifest import INDEX_TYPE, MANIFEST_TYPE, MAX_MANIFEST_BYTES
from signing.digest import Digest, sha256
from signing.errors import DamagedError
from signing.strictjson import Json, load

MAX_INDEX_BYTES = 1 << 20


class Registry:
    """One repository of a registry; a context manager that closes the connection.

    Args:
        reference: which one.
        login: user and password, or None.
        pushes: whether this connection will write.
    """

    def __init__(self, reference: Reference, login: tuple[str, str] | None = None, *, pushes: bool = False) -> None:
        self.reference = reference
        self._session = RegistrySession(reference, login, pushes=pushes)

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def has_blob(self, digest: Digest, size: int) -> bool:
        """Whether the registry states that it holds a blob of this digest and size in bytes."""
        with self._session.request("HEAD", f"/blobs/sha256:{digest}", allows_missing=True) as answer:
            length = answer.headers.get("Content-Length", "")
            return answer.status == 200 and length == str(size)

    def put_blob(self, data: bytes, digest: Digest) -> bool:
        """Send a blob, unless it is there.

        Args:
            data: of this digest; the caller has compared it.
            digest: its name.

        Returns:
            Whether it was sent.
        """
        if self.has_blob(digest, len(data)):
            return False
        with self._session.request("POST", "/blobs/uploads/", body=b"") as answer:
            location = answer.headers.get("Location", "")
        url = self._session.resolve(location, {"digest": f"sha256:{digest}"})
        with self._session.request("PUT", url, body=data, headers={"Content-Type": "application/octet-stream"}):
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
        """Send a manifest or an index.

        Args:
            name: a tag, or its digest.
            data: its bytes.
            media_type: what it is.

        Returns:
            Whether the registry keeps a list of referrers, and has put this manifest on it.
        """
        headers = {"Content-Type": media_type}
        with self._session.request("PUT", f"/manifests/{name}", body=data, headers=headers) as answer:
            return "OCI-Subject" in answer.headers

    def get_manifest(self, name: str) -> bytes | None:
        """The bytes of a manifest or an index by tag or digest, of at most 4 MiB; None where there is none."""
        data = self._get(f"/manifests/{name}", MAX_MANIFEST_BYTES, f"{MANIFEST_TYPE}, {INDEX_TYPE}")
        if data is not None and name.startswith("sha256:") and sha256(data) != name.removeprefix("sha256:"):
            raise self._session.hostile(f"a manifest of digest {name}", f"one with sha256 {sha256(data)}")
        return data

    def referrers(self, digest: Digest) -> list[Json]:
        """Descriptors of the manifests that claim to refer to a manifest, untrusted.

        From the registry's own list, else from the index under the tag that stands for it.
        """
        for path in (f"/referrers/sha256:{digest}", f"/manifests/{fallback_tag(digest)}"):
            data = self._get(path, MAX_INDEX_BYTES, INDEX_TYPE)
            if data is None:
                continue
            value = load(data, f"{self.reference} referrers", MAX_INDEX_BYTES)
            found = value.get("manifests") if isinstance(value, dict) else None
            if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
                raise self._session.hostile("an index of what refers to the bundle", "something else")
            if found:
                return found
        return []

    def _get(self, path: str, max_bytes: int, accept: str = "") -> bytes | None:
        headers = {"Accept": accept} if accept else {}
        with self._session.request("GET", path, headers=headers, allows_missing=True) as answer:
            if answer.status == NOT_FOUND:
                return None
            data = bytearray()
            for block in answer.raw_blocks():
                data += block
                if len(data) > max_bytes:
                    raise self._session.hostile(f"at most {max_bytes} bytes for {path[:100]}", "more")
            return bytes(data)


def fallback_tag(digest: Digest) -> str:
    """The tag under which a registry without a list of referrers keeps one."""
    return f"sha256-{digest}"
