"""The gateway's process, as its parent sees it.

Owns how the gateway is started, sent events, and ended. It runs in the release's own environment and in the host's
network, since users connect to it. Whatever else it knows, it gets through descriptors.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import time
from pathlib import Path
from socket import socket
from threading import Lock

from appliance.entry_points import GATEWAY
from appliance.host.process.child import Child, describe_exit, spawn
from appliance.host.tls.local_connection import connect_locally
from appliance.serve.gateway.messages import EngineEvent, Plan
from signing.errors import ApplianceError

READY_S = 60.0
_POLL_S = 0.02


class GatewayProcess:
    """Starts the gateway, again where it has ended, and sends it each change of an engine's state.

    Args:
        python: the interpreter of the release's environment.
        cwd: where it runs.
        plan: what it serves.
        listening: the socket that users connect to.
        log: of the gateway.
    """

    def __init__(self, python: Path, cwd: Path, plan: Plan, listening: socket, log: Path) -> None:
        self._python, self._cwd, self._plan = python, cwd, plan
        self._listening, self._log = listening, log
        self._child: Child | None = None
        self._pipe = -1
        self._events: dict[str, EngineEvent] = {}
        self._lock = Lock()

    def start(self) -> None:
        """Start the gateway, send it the newest event of each engine, and wait until it answers.

        Raises:
            ApplianceError: it ended, or does not answer in time.
        """
        plan, port = _create_memory_file(self._plan.to_bytes()), self._listening.fileno()
        reading, writing = os.pipe()
        try:
            command: list[str | Path] = [self._python, "-I", "-B", "-m", GATEWAY]
            command += ["--plan", str(plan), "--listen", str(port), "--news", str(reading)]
            self._child = spawn(
                command,
                cwd=self._cwd,
                env={"LC_ALL": "C.UTF-8", "HOME": "/nonexistent"},
                pass_fds=(plan, port, reading),
                log=self._log,
                isolated=False,
            )
        finally:
            os.close(plan)
            os.close(reading)
            self._replace_pipe(writing)
        self._wait_ready()

    def send(self, event: EngineEvent) -> None:
        """Send an event to the gateway, and keep it for the next one. May be called from any thread."""
        with self._lock:
            self._events[event.model] = event
            self._write(event)

    def exit_status(self) -> str | None:
        """How the gateway ended, in words; None while it runs."""
        assert self._child is not None  # started before
        code = self._child.poll()
        return None if code is None else describe_exit(code)

    def stop(self) -> None:
        """Let the gateway finish what it began, then end it. Safe to call twice."""
        if self._child is not None:
            self._child.stop()
        self._replace_pipe(-1)

    def ended(self, found: str) -> ApplianceError:
        """The error for a gateway that cannot be kept running."""
        return ApplianceError(
            "gateway.ended",
            "gateway",
            expected="a gateway that keeps running",
            found=found,
            hint=f"see its log: {self._log}",
        )

    def _wait_ready(self) -> None:
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            status = self.exit_status()
            if status is not None:
                raise self.ended(status)
            if self._is_ready():
                return
            time.sleep(_POLL_S)
        raise self.ended(f"no answer within {READY_S:.0f} s")

    def _is_ready(self) -> bool:
        address, port = self._listening.getsockname()[:2]
        connection = connect_locally(address, port, self._plan.tls, timeout=5.0)
        try:
            connection.request("GET", "/readyz")
            reply = connection.getresponse()
            # During a switch the gateway of the release before answers on the same port.
            made_by = (reply.headers["appliance-release"], reply.headers["appliance-policy"])
            # Its own readiness, not the engines': with none serving, 503 is the right answer.
            return reply.status in (200, 503) and made_by == (self._plan.manifest, self._plan.policy)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _replace_pipe(self, writing: int) -> None:
        with self._lock:
            if self._pipe >= 0:
                os.close(self._pipe)
            self._pipe = writing
            for event in self._events.values():
                self._write(event)

    def _write(self, event: EngineEvent) -> None:
        if self._pipe >= 0:
            with contextlib.suppress(BrokenPipeError):  # it has ended; the next one gets every event
                os.write(self._pipe, event.to_line())


def _create_memory_file(data: bytes) -> int:
    """A descriptor from which a child reads these bytes."""
    descriptor = os.memfd_create("plan", os.MFD_CLOEXEC)
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
