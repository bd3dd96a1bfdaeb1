"""A registry on the loopback interface, in memory, that can be made to lie."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Lie = Callable[[str, bytes], bytes]
"""Makes the bytes that are sent from the path that was asked for and the honest bytes."""


class SimRegistry:
    """What it holds, what was asked of it, and how it misbehaves.

    Args:
        has_referrers: whether it keeps a list of what refers to a manifest, as registries of version 1.1 do.
    """

    def __init__(self, has_referrers: bool = True) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.has_referrers = has_referrers
        self.lie: Lie = lambda _path, data: data
        self.is_endless = False
        self.redirect = ""
        self.upload = "/v2/upload/1?state=x"
        self.breaks_after = 1 << 30
        self.login: tuple[str, str] | None = None
        self.token = ""
        self.host = ""

    def sent(self, method: str, part: str) -> int:
        """How many requests of a method had something in their path."""
        return sum(1 for verb, path in self.asked if verb == method and part in path)

    def referrers(self, digest: str) -> bytes:
        """The list of what refers to a manifest."""
        found = {
            key: value
            for key, data in self.manifests.items()
            if key.startswith("sha256:") and (value := json.loads(data)).get("subject", {}).get("digest") == digest
        }
        entries = [
            {
                "mediaType": value["mediaType"],
                "digest": key,
                "size": len(self.manifests[key]),
                "artifactType": value["artifactType"],
            }
            for key, value in found.items()
        ]
        return json.dumps({"schemaVersion": 2, "manifests": entries}).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def registry(self) -> SimRegistry:
        return self.server.registry  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if self.registry.is_endless and self.command == "GET":
            self.end_headers()
            self.close_connection = True
            try:
                while True:
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _is_let_in(self) -> bool:
        registry = self.registry
        registry.asked.append((self.command, self.path))
        if len(registry.asked) > registry.breaks_after:
            self.close_connection = True
            return False
        if registry.token:
            if self.headers.get("Authorization") != f"Bearer {registry.token}":
                realm = f'Bearer realm="http://{registry.host}/token",service="sim"'
                self._answer(401, WWW_Authenticate=realm)
                return False
        elif registry.login and self.headers.get("Authorization") != _basic(*registry.login):
            self._answer(401, WWW_Authenticate='Basic realm="sim"')
            return False
        return True

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        registry = self.registry
        if registry.token and self.path.startswith("/token"):
            registry.asked.append((self.command, self.path))
            is_known = registry.login is None or self.headers.get("Authorization") == _basic(*registry.login)
            self._answer(200 if is_known else 401, json.dumps({"token": registry.token}).encode())
            return
        if not self._is_let_in():
            return
        if registry.redirect and "/blobs/" in self.path and self.command == "GET":
            self._answer(307, Location=registry.redirect)
            return
        kind, name = self.path.split("/")[-2:]
        if kind == "referrers":
            data = registry.referrers(name) if registry.has_referrers else None
        else:
            data = (registry.blobs if kind == "blobs" else registry.manifests).get(name)
        if data is None:
            self._answer(404)
        else:
            self._answer(200, registry.lie(self.path, data))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self._is_let_in():
            self._answer(202, Location=self.registry.upload)

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if not self._is_let_in():
            return
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if match := re.search(r"[?&]digest=(sha256(?::|%3A)[0-9a-f]{64})", self.path):
            ok = match[1].replace("%3A", ":") == digest
            if ok:
                self.registry.blobs[digest] = data
            self._answer(201 if ok else 400)
            return
        self.registry.manifests[self.path.rpartition("/")[2]] = data
        self.registry.manifests[digest] = data
        subject = json.loads(data).get("subject", {}).get("digest", "")
        self._answer(201, **({"OCI_Subject": subject} if subject and self.registry.has_referrers else {}))


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@contextmanager
def serve_registry(registry: SimRegistry) -> Iterator[SimRegistry]:
    """Serve it until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.registry = registry  # type: ignore[attr-defined]
    registry.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
