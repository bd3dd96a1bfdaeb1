"""A web server on loopback that can be told to misbehave, and small packages for it to serve."""

from __future__ import annotations

import base64
import hashlib
import io
import ssl
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from appliance.builder.sources.pypi import open_index


@dataclass
class Answer:
    """What the server says for one path.

    Args:
        body: the bytes of the file.
        status: of the answer.
        headers: further ones.
        ranges: whether the server can continue a file.
        drops: for the next answers, after how many bytes the connection ends.
        busy: how many times it first answers 503.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    drops: list[int] = field(default_factory=list)
    busy: int = 0


@dataclass(frozen=True)
class Request:
    """What somebody asked for."""

    method: str
    path: str
    headers: Mapping[str, str]


class Site:
    """The server's files and what was asked of it."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[Request] = []
        self.sent = 0
        self.url = ""

    def put(self, path: str, body: bytes, **more: object) -> str:
        """Serve bytes at a path; returns the whole address."""
        self.answers[path] = Answer(body, **more)  # type: ignore[arg-type]
        return self.url + path

    def asked(self, path: str) -> list[Request]:
        """The requests for one path."""
        return [request for request in self.requests if request.path == path]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, site: Site) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.site = site

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up, or distrusts the certificate, is part of some tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Without it, each small answer waits 40 ms for an acknowledgement that the client delays.
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        site = self.server.site
        site.requests.append(Request(self.command, self.path, dict(self.headers.items())))
        answer = site.answers.get(self.path, Answer(b"no such file", 404))
        if answer.busy > 0:
            answer.busy -= 1
            answer = Answer(b"busy", 503)
        start = self._start(answer)
        if start and start >= len(answer.body):
            self._head(416, {"Content-Length": "0"})
            return
        body = answer.body[start:]
        headers = {"Content-Length": str(len(body))} | answer.headers
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(answer.body) - 1}/{len(answer.body)}"
        self._head(206 if start else answer.status, headers)
        if self.command != "HEAD":
            self._send(body, answer)

    def _start(self, answer: Answer) -> int:
        wanted = self.headers.get("Range")
        return int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and answer.ranges else 0

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, body: bytes, answer: Answer) -> None:
        if answer.drops:
            body = body[: answer.drops.pop(0)]
            self.close_connection = True
        # Counted first: a client that has the last byte may look before this thread goes on.
        self.server.site.sent += len(body)
        try:
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.server.site.sent -= len(body)
            self.close_connection = True


@contextmanager
def serve(context: ssl.SSLContext | None = None) -> Iterator[Site]:
    """Run a server while the block runs."""
    site = Site()
    server = _Server(site)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    site.url = f"http{'s' if context else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def wheel(
    name: str,
    version: str = "1.0",
    *,
    requires: Sequence[str] = (),
    files: Mapping[str, bytes] | None = None,
    licence: str = "MIT",
    has_text: bool = True,
) -> bytes:
    """A wheel with metadata, a RECORD and whatever else it shall hold; the text of its licence, too, if wanted."""
    stem = f"{name.replace('-', '_')}-{version}"
    fields = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", f"License-Expression: {licence}"]
    metadata = "\n".join([*fields, *(f"Requires-Dist: {text}" for text in requires)]) + "\n"
    members = {
        **(files if files is not None else {f"{name.replace('-', '_')}.py": f"VERSION = {version!r}\n".encode()}),
        f"{stem}.dist-info/METADATA": metadata.encode(),
        f"{stem}.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if has_text:
        members[f"{stem}.dist-info/licenses/LICENSE"] = f"the licence of {name}\n".encode()
    lines = [f"{path},sha256={_digest(data)},{len(data)}" for path, data in members.items()]
    members[f"{stem}.dist-info/RECORD"] = "\n".join([*lines, f"{stem}.dist-info/RECORD,,"]).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in members.items():
            archive.writestr(zipfile.ZipInfo(path), data)
    return out.getvalue()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


ARCHITECTURES = (
    "static const std::map<llm_arch, const char *> LLM_ARCH_NAMES = {\n"
    '    { LLM_ARCH_LLAMA, "llama" },\n    { LLM_ARCH_BERT, "bert" },\n    { LLM_ARCH_UNKNOWN, "(unknown)" },\n};\n'
)


def sdist(name: str, version: str, requires: Sequence[str] = ()) -> bytes:
    """A source archive with metadata, and the architectures that a small llama.cpp would know."""
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense: MIT\n"
    text += "".join(f"Requires-Dist: {one}\n" for one in requires)
    text += 'Requires-Dist: never-asked-for; extra == "server"\n'
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for path, data in (("PKG-INFO", text), ("vendor/llama.cpp/src/llama-arch.cpp", ARCHITECTURES)):
            info = tarfile.TarInfo(f"{name}-{version}/{path}")
            info.size = len(data.encode())
            archive.addfile(info, io.BytesIO(data.encode()))
    return out.getvalue()


class PackageIndex:
    """A simple repository on a site, in HTML without sizes and digests, or in JSON with them."""

    def __init__(self, site: Site, form: str = "html") -> None:
        self.site = site
        self.form = form
        self.url = f"{site.url}/simple"
        self.files: dict[str, dict[str, bytes]] = {}
        self.marks: dict[str, dict[str, object]] = {}
        # An earlier site of this process may have had the same port, with other pages.
        open_index.cache_clear()

    def add(self, project: str, file: str, data: bytes, **marks: object) -> None:
        """Offer a file of a project; `marks` are further fields of its line on a page in JSON."""
        self.files.setdefault(project, {})[file] = data
        self.marks[file] = marks
        self.site.put(f"/files/{file}", data)
        page = self._json(project) if self.form == "json" else self._html(project)
        kind = "application/vnd.pypi.simple.v1+json" if self.form == "json" else "text/html; charset=utf-8"
        self.site.put(f"/simple/{project}/", page, headers={"Content-Type": kind})

    def _html(self, project: str) -> bytes:
        links = "".join(f'<a href="../../files/{file}">{file}</a><br>' for file in self.files[project])
        return f"<!DOCTYPE html><html><body>{links}</body></html>".encode()

    def _json(self, project: str) -> bytes:
        import json

        files = [
            {
                "filename": file,
                "url": f"{self.site.url}/files/{file}",
                "hashes": {"sha256": hashlib.sha256(data).hexdigest()},
                "size": len(data),
                **self.marks[file],
            }
            for file, data in self.files[project].items()
        ]
        value = {"meta": {"api-version": "1.1"}, "name": project, "files": files, "versions": []}
        return json.dumps(value).encode()


def write_recipe(folder: Path, source: str, **changes: str) -> Path:
    """A recipe of one model; `changes` replace whole lines by their field."""
    lines = {
        "name": "name: toy",
        "version": "version: 1.0.0",
        "targets": 'targets: [{os: debian-12, arch: x86_64, python: ["3.11"]}]',
        "models": f"models: [{{name: tiny, source: '{source}', licence: Apache-2.0, context: 64}}]",
        "runtime": "runtime: {llama_cpp_python: 0.3.36, cpu: all, cuda: false}",
    } | changes
    path = folder / "toy.yaml"
    path.write_text("\n".join(lines.values()) + "\n")
    return path
