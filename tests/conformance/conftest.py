"""A repository over loopback http, and a client with an empty folder.

In `.ci/run` python-tuf's client takes most of the tests, too: they expect what TUF does, not only what we do. `ours` is
for the few where the two may differ, and each of those states why.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.conformance import __main__, reference
from tests.conformance.publisher import EVERY, Publisher


class Server(http.server.ThreadingHTTPServer):
    """Serves the files of the publisher that a test puts here."""

    publisher: Publisher


class Files(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = unquote(self.path).lstrip("/")
        self.server.publisher.asked.append(name)
        data = self.server.publisher.files.get(name)
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Files) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.05,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def publisher(server: Server) -> Publisher:
    server.publisher = Publisher()
    return server.publisher


class Client:
    """A client that trusts the publisher's first root and has nothing else, by its command line."""

    def __init__(self, main: Callable[[Sequence[str]], int], server: Server, folder: Path) -> None:
        self.main, self.server, self.folder = main, server, folder
        self.metadata, self.targets = folder / "metadata", folder / "targets"
        self.metadata.mkdir()
        self.targets.mkdir()
        assert self.init(server.publisher.files["metadata/1.root.json"]) == 0

    def init(self, root: bytes) -> int:
        file = self.folder / "initial_root.json"
        file.write_bytes(root)
        return self.main(["--metadata-dir", str(self.metadata), "init", str(file)])

    def refresh(self) -> int:
        return self.main(["--metadata-dir", str(self.metadata), "--metadata-url", self.url("metadata"), "refresh"])

    def download(self, *names: str) -> int:
        argv = ["--metadata-dir", str(self.metadata), "--metadata-url", self.url("metadata")]
        argv += [word for name in names for word in ("--target-name", name)]
        argv += ["--target-base-url", self.url("targets"), "--target-dir", str(self.targets), "download"]
        return self.main(argv)

    def url(self, folder: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{folder}"

    def versions(self) -> dict[str, int]:
        """The version of each role that is kept."""
        found = {}
        for role in EVERY:
            path = self.metadata / f"{role}.json"
            if path.exists():
                found[role] = json.loads(path.read_bytes())["signed"]["version"]
        assert {path.name for path in self.metadata.glob("*.*")} == {f"{role}.json" for role in found}
        return found

    def downloaded(self) -> list[bytes]:
        return sorted(path.read_bytes() for path in self.targets.iterdir())


@pytest.fixture(params=["ours", pytest.param("python-tuf", marks=pytest.mark.ci)])
def client(request: pytest.FixtureRequest, server: Server, publisher: Publisher, tmp_path: Path) -> Client:
    mains = {"ours": __main__.main, "python-tuf": reference.main}
    return Client(mains[request.param], server, tmp_path)


@pytest.fixture
def ours(server: Server, publisher: Publisher, tmp_path: Path) -> Client:
    return Client(__main__.main, server, tmp_path)
