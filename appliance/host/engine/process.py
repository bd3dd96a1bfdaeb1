"""The engine: a process of `llama-server` that serves one model on a UNIX socket, without a network.

Owns the start and the end of this process. The process never opens a model itself: it inherits the descriptor of one
that is verified and open.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from appliance.engine_program import refusal_reason, stack_bytes
from appliance.host.engine.client import EngineAnswer, EngineClient
from appliance.host.engine.engine_command import EngineSpec, engine_command
from appliance.host.engine.engine_output import EngineOutput
from appliance.host.models.served_file import open_verified
from appliance.host.process.child import Child, describe_exit, spawn
from bundles.progress import OnProgress, ignore
from signing.errors import ApplianceError, HostUnfitError, UsageError

READY_TIMEOUT_S = 300.0
MAX_SOCKET_PATH = 107
"""The largest path of a UNIX socket that Linux takes, in bytes."""

_POLL_S = 0.05
_TAIL_LINES, _REASON_LINES = 3, 12
_ILLEGAL_INSTRUCTION = 128 + 4


@dataclass(frozen=True, slots=True)
class Engine:
    """A started engine. Use as a context manager, or call `stop`.

    Args:
        spec: the model and the settings.
        child: its process.
        socket: the path of the socket that it listens on.
        level: how strongly the served bytes are bound to the verified ones; see `appliance.host.models.served_file`.
        log: the file that its output is added to.
        output: adds it, without the texts of users.
    """

    spec: EngineSpec
    child: Child
    socket: Path
    level: str
    log: Path
    output: EngineOutput

    @property
    def isolation(self) -> str:
        """`netns` where the engine has no network at all, else `none`."""
        return self.child.isolation

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until the model is loaded and the engine answers.

        Args:
            timeout_s: the longest wait, in seconds.

        Raises:
            HostUnfitError: the engine needs an instruction that this processor lacks.
            ApplianceError: it ended, or is not ready in time.
        """
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            code = self.child.poll()
            if code is not None:
                raise self.exit_error(code)
            if self._client().is_healthy():
                self.output.open_to_users()
                return
            time.sleep(_POLL_S)
        raise ApplianceError(
            "engine.not-ready",
            self.spec.name,
            expected=f"an answer within {timeout_s:.0f} s",
            found=f"none; the log ends with: {self._last_log_lines()}",
            hint=f"see the whole log: {self.log}",
        )

    def chat(self, prompt: str, max_tokens: int, timeout_s: float = 120.0) -> EngineAnswer:
        """See `EngineClient.chat`; where the engine has ended, the error is that of `exit_error`."""
        with self._reporting_exit():
            return self._client().chat(prompt, max_tokens, timeout_s)

    def embed(self, texts: Sequence[str], timeout_s: float = 120.0) -> list[list[float]]:
        """See `EngineClient.embed`; where the engine has ended, the error is that of `exit_error`."""
        with self._reporting_exit():
            return self._client().embed(texts, timeout_s)

    def rank(self, query: str, documents: Sequence[str], timeout_s: float = 120.0) -> list[float]:
        """See `EngineClient.rank`; where the engine has ended, the error is that of `exit_error`."""
        with self._reporting_exit():
            return self._client().rank(query, documents, timeout_s)

    @contextmanager
    def _reporting_exit(self) -> Iterator[None]:
        try:
            yield
        except ApplianceError:
            code = self.child.poll()
            if code is not None:
                raise self.exit_error(code) from None
            raise

    def exit_error(self, code: int) -> ApplianceError:
        """The error for an engine that ended by itself.

        Args:
            code: its exit status; 128 and the signal's number where a signal ended it.
        """
        error = HostUnfitError if code == _ILLEGAL_INSTRUCTION else ApplianceError
        return error(
            "engine.died",
            self.spec.name,
            expected="an engine that keeps running",
            found=f"{describe_exit(code)}; {self._reason()}",
            hint=(
                "the processor differs from the one at install: run `appliance install SOURCE` again"
                if error is HostUnfitError
                else f"see the whole log: {self.log}"
            ),
        )

    def stop(self) -> int:
        """Stop the engine and return its exit status. Safe to call twice."""
        code = self.child.stop()
        self.socket.unlink(missing_ok=True)
        return code

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.stop()

    def _client(self) -> EngineClient:
        return EngineClient(self.spec.name, self.socket, str(self.log))

    def _reason(self) -> str:
        # A model that is not loaded has its reason some lines before the end.
        if reason := refusal_reason("\n".join(self._log_lines(_REASON_LINES))):
            return f"its reason: {reason}"
        return f"the log ends with: {self._last_log_lines()}"

    def _last_log_lines(self) -> str:
        if self.child.poll() is not None:
            self.output.wait()
        return " | ".join(line.strip()[:200] for line in self._log_lines(_TAIL_LINES) if line.strip()) or "nothing"

    def _log_lines(self, count: int) -> list[str]:
        try:
            return self.log.read_text("utf-8", "replace").splitlines()[-count:]
        except OSError:
            return []


def start_engine(spec: EngineSpec, run_dir: Path, log: Path, on_progress: OnProgress = ignore) -> Engine:
    """Verify a model and start an engine on it.

    Args:
        spec: the model and the settings.
        run_dir: a private folder for the socket, on a short path.
        log: the file that the engine's output is added to.
        on_progress: called while the model is verified.

    Returns:
        The engine, which is loading; see `Engine.wait_ready`.

    Raises:
        DamagedError: the model's bytes differ from the signed ones.
        UsageError: the socket's path would be too long.
        HostUnfitError: this host does not give the level that the site demands.
        ApplianceError: the engine cannot be started.
    """
    path = socket_path(run_dir, spec.name)
    path.unlink(missing_ok=True)
    with open_verified(spec.file, spec.store, on_progress, min_level=spec.min_level) as served:
        command, environment = engine_command(spec, served, path)
        output = EngineOutput(log)
        try:
            stack = stack_bytes(spec.context)
            child = spawn(
                command, cwd=spec.runtime, env=environment, pass_fds=(served.fd,), log=output.pipe, stack_bytes=stack
            )
        finally:
            output.start()
        return Engine(spec, child, path, served.level, log, output)


def socket_path(run_dir: Path, name: str) -> Path:
    """The path of the socket that an engine listens on.

    Args:
        run_dir: a private folder.
        name: the model's name.

    Raises:
        UsageError: the path is longer than that of a socket may be.
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
