"""QEMU's control channel (QMP): one command, one answer, and events that are waited for.

Owns the line protocol over a connected socket. It must never decide what a command means for the guest.

Source: QEMU, docs/interop/qmp-spec.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any


class QmpError(RuntimeError):
    """QEMU refused a command; the text is QEMU's own."""


class Qmp:
    """A conversation with one QEMU process.

    Args:
        connection: connected to a monitor in control mode; owned from here on.
        timeout_s: how long an answer may take.
    """

    def __init__(self, connection: socket.socket, timeout_s: float = 60) -> None:
        self._socket, self._timeout_s = connection, timeout_s
        self._rest = b""
        self._events: list[dict[str, Any]] = []
        self._line(timeout_s)  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run one command and return what it answers.

        Args:
            command: as QEMU spells it.
            arguments: underscores in names become hyphens.

        Raises:
            QmpError: QEMU refused.
            TimeoutError: no answer in time.
            ConnectionError: QEMU is gone.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._socket.sendall(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        while True:
            message = self._line(self._timeout_s)
            if "error" in message:
                raise QmpError(f"{command}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]
            self._events.append(message)

    def wait_for(self, event: str, timeout_s: float, **data: str) -> None:
        """Wait for an event whose data holds these values; one that came before counts, once.

        Raises:
            TimeoutError: it did not come.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            for at, message in enumerate(self._events):
                if message.get("event") == event and data.items() <= message.get("data", {}).items():
                    del self._events[at]
                    return
            self._events.append(self._line(deadline - time.monotonic()))

    def close(self) -> None:
        """End the conversation; QEMU goes on."""
        self._socket.close()

    def _line(self, timeout_s: float) -> dict[str, Any]:
        if timeout_s <= 0:
            raise TimeoutError("QEMU did not say what was waited for")
        self._socket.settimeout(timeout_s)
        while b"\n" not in self._rest:
            part = self._socket.recv(1 << 16)
            if not part:
                raise ConnectionError("QEMU closed its monitor")
            self._rest += part
        line, self._rest = self._rest.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message
