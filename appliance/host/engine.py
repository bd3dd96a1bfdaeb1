"""The process that runs one model: `llama-server` on a UNIX socket, without a network.

Owns the engine's command line and its life. It must never open a model itself: it gets one that is verified and open.

Rules:
- started in the runtime's folder, so that the program finds no library but those beside it (it also searches there);
- an environment of its own: no setting, proxy or path of the caller reaches it;
- every feature that reads files, runs tools, fetches or shows a page is left off; what it serves is named by `--alias`;
- memory is fixed at the start: `context` tokens for each of `slots` conversations, and no cache that grows beside them.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from appliance.host.levels import ServedFile, open_verified
from appliance.host.processes import Child, describe_exit, spawn
from bundles.contents import File
from bundles.progress import OnProgress, ignore
from signing.errors import ApplianceError, HostUnfitError, UsageError

PROGRAM = "llama-server"
READY_TIMEOUT_S = 300.0
MAX_SOCKET_PATH = 107
"""What the kernel's address of a UNIX socket holds, in bytes."""

_POLL_S = 0.05
_TAIL_LINES = 3
_ILLEGAL_INSTRUCTION = 128 + 4


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What one engine is to run.

    Args:
        name: the model's name, for users and for the socket's file.
        file: the model's file, believed.
        store: where it lies on this host.
        runtime: the folder with `llama-server` and its libraries, verified by the caller.
        context: tokens of one conversation.
        slots: conversations at the same time.
        threads: for computing.
    """

    name: str
    file: File
    store: Path
    runtime: Path
    context: int
    slots: int
    threads: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine said: the text, how many tokens it took, and why it ended (`stop` or `length`)."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Engine:
    """A started engine. Use as a context manager, or call `stop`.

    Args:
        spec: what it runs.
        child: its process.
        socket: where it listens.
        level: how strongly the served bytes are bound to the verified ones; see `appliance.host.levels`.
        log: what it says.
    """

    spec: EngineSpec
    child: Child
    socket: Path
    level: str
    log: Path

    @property
    def isolation(self) -> str:
        """`netns` where the engine has no network at all, else `none`."""
        return self.child.isolation

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until the model is loaded and the engine answers.

        Raises:
            HostUnfitError: the engine needs an instruction that this processor lacks.
            ApplianceError: it ended, or is not ready in time.
        """
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            code = self.child.poll()
            if code is not None:
                raise self.died(code)
            if self._is_healthy():
                return
            time.sleep(_POLL_S)
        raise ApplianceError(
            "engine.not-ready",
            self.spec.name,
            expected=f"an answer within {timeout_s:.0f} s",
            found=f"none; the log ends with: {self._last_words()}",
            hint=f"see the whole log: {self.log}",
        )

    def ask(self, prompt: str, max_tokens: int, timeout_s: float = 120.0) -> Answer:
        """Ask one question, without randomness.

        Args:
            prompt: the user's message.
            max_tokens: where the answer is cut.
            timeout_s: for the whole answer.

        Raises:
            ApplianceError: the engine did not answer, or not as it should.
        """
        body = {
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "seed": 1,
        }
        try:
            status, data = self._request("POST", "/v1/chat/completions", json.dumps(body).encode(), timeout_s)
            value = json.loads(data)
            if status == 200:
                choice, usage = value["choices"][0], value["usage"]
                return Answer(
                    str(choice["message"]["content"]),
                    int(usage["prompt_tokens"]),
                    int(usage["completion_tokens"]),
                    str(choice["finish_reason"]),
                )
            found = f"status {status}: {data[:200].decode('utf-8', 'replace')}"
        except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
            code = self.child.poll()
            if code is not None:
                raise self.died(code) from None
            found = f"{type(error).__name__}: {error}"
        raise ApplianceError(
            "engine.no-answer", self.spec.name, expected="an answer", found=found, hint=f"see the log: {self.log}"
        )

    def died(self, code: int) -> ApplianceError:
        """The error for an engine that ended by itself with this exit status."""
        error = HostUnfitError if code == _ILLEGAL_INSTRUCTION else ApplianceError
        return error(
            "engine.died",
            self.spec.name,
            expected="an engine that keeps running",
            found=f"{describe_exit(code)}; the log ends with: {self._last_words()}",
            hint=(
                "the processor differs from the one at install: run `appliance install SOURCE` again"
                if error is HostUnfitError
                else f"see the whole log: {self.log}"
            ),
        )

    def stop(self) -> int:
        """End the engine and return its exit status. Safe to call twice."""
        code = self.child.stop()
        self.socket.unlink(missing_ok=True)
        return code

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.stop()

    def _is_healthy(self) -> bool:
        try:
            return self._request("GET", "/health", None, 5.0)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def _request(self, method: str, path: str, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        connection = _UnixConnection(self.socket, timeout_s)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _last_words(self) -> str:
        try:
            lines = self.log.read_text("utf-8", "replace").splitlines()
        except OSError:
            return "nothing"
        return " | ".join(line.strip()[:200] for line in lines[-_TAIL_LINES:] if line.strip()) or "nothing"


def start_engine(spec: EngineSpec, run_dir: Path, log: Path, on_progress: OnProgress = ignore) -> Engine:
    """Verify a model and start an engine on it.

    Args:
        spec: what to run.
        run_dir: a private folder for the socket, on a short path.
        log: the file that the engine's talk is added to.
        on_progress: called while the model is verified.

    Returns:
        The engine, which is loading; see `Engine.wait_ready`.

    Raises:
        DamagedError: the model's bytes differ from the signed ones.
        UsageError: the socket's path would be too long.
        ApplianceError: the engine cannot be started.
    """
    path = socket_path(run_dir, spec.name)
    path.unlink(missing_ok=True)
    with open_verified(spec.file, spec.store, on_progress) as served:
        environment = {"HOME": "/nonexistent", "LLAMA_CACHE": str(run_dir), "LC_ALL": "C.UTF-8"}
        command = _command(spec, served, path)
        child = spawn(command, cwd=spec.runtime, env=environment, pass_fds=(served.fd,), log=log)
        return Engine(spec, child, path, served.level, log)


def socket_path(run_dir: Path, name: str) -> Path:
    """Where an engine listens.

    Raises:
        UsageError: the path is longer than a socket's address may be.
    """
    path = run_dir / f"{name}.sock"
    if len(bytes(path)) > MAX_SOCKET_PATH:
        raise UsageError(
            "engine.socket-path",
            str(path),
            expected=f"at most {MAX_SOCKET_PATH} bytes",
            found=f"{len(bytes(path))} bytes",
            hint="use a shorter path for temporary files (TMPDIR)",
        )
    return path


def _command(spec: EngineSpec, served: ServedFile, path: Path) -> list[str]:
    return [
        *(str(spec.runtime / PROGRAM), "--model", served.path_for_child, "--alias", spec.name),
        *("--host", str(path), "--offline", "--no-ui", "--no-slots", "--no-agent", "--metrics"),
        # The whole context is divided among the slots; a unified one would let one conversation starve the others.
        *("--ctx-size", str(spec.context * spec.slots), "--parallel", str(spec.slots), "--no-kv-unified"),
        *("--cache-ram", "0", "--no-cache-idle-slots", "--fit", "off"),
        # Threads without work sleep: spinning, they take the processor from those that have some.
        *("--threads", str(spec.threads), "--poll", "0", "--threads-http", str(spec.slots + 4), "--timeout", "600"),
        *("--jinja", "--no-context-shift", "--cors-origins", "localhost", "--no-cors-credentials"),
        *("--log-colors", "off", "--log-verbosity", "2", "--log-timestamps", "--log-prefix"),
    ]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("engine", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path; there is no host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
