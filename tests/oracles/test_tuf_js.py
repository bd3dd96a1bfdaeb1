"""Another TUF client, in another language, reads our repository."""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundles.oci.layout import target_name
from tests.oracles.__main__ import HERE, TUF_JS, node_of
from tests.oracles.ready import oracle
from tests.toy import build_toy


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A web server that does not talk."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder over http on this machine."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def fetch(folder: Path, root: bytes, target: str, into: Path) -> subprocess.CompletedProcess[str]:
    environment = oracle(TUF_JS)
    (into / "metadata").mkdir(parents=True)
    (into / "metadata" / "root.json").write_bytes(root)
    with served(folder) as url:
        argv: list[str | Path] = [
            node_of(environment),
            HERE / "tuf-js" / "client.mjs",
            into / "metadata",
            f"{url}/metadata/",
        ]
        return subprocess.run(
            [*argv, into, f"{url}/targets/", target],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "ORACLE": str(environment)},
        )


def test_tuf_js_fetches_the_manifest_as_a_target(tmp_path: Path) -> None:
    workspace, bundle = build_toy(tmp_path / "workspace")
    done = fetch(bundle, workspace.root_file.read_bytes(), target_name("toy", "1.0.0"), tmp_path / "client")
    assert done.returncode == 0, done.stderr
    [manifest] = (bundle / "targets").rglob("*.manifest.json")
    assert Path(done.stdout.strip()).read_bytes() == manifest.read_bytes()


def test_tuf_js_refuses_it_under_another_root(tmp_path: Path) -> None:
    _, bundle = build_toy(tmp_path / "workspace")
    other, _ = build_toy(tmp_path / "other")
    done = fetch(bundle, other.root_file.read_bytes(), target_name("toy", "1.0.0"), tmp_path / "client")
    assert done.returncode != 0
