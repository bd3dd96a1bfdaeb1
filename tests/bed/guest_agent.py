"""The test's end of the channel into a guest: `guest/agent.py` holds the other end and states the protocol.

It must never be shared by threads: one request at a time, answers in order.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bed.host import BedError, Finished

BLOCK_BYTES = 1 << 20
TRANSFER_TIMEOUT_S = 600.0
MARGIN_S = 30.0
"""What the guest may take beyond a command's own limit before the guest is given up."""


class AgentError(BedError):
    """The guest could not do what it was asked; the text is its own."""


class Agent:
    """A conversation with one guest.

    Args:
        connection: connected to the guest's port; owned from here on.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._last_id = 0

    def wait(self, timeout_s: float) -> float:
        """Wait until the guest answers.

        Returns:
            Seconds since the guest's kernel started.

        Raises:
            TimeoutError: it does not.
        """
        # The request waits in the channel until the guest opens its end.
        uptime = self._ask(timeout_s, op="ping")["uptime"]
        assert isinstance(uptime, float)
        return uptime

    def wake(self, epoch: float) -> None:
        """Set the clock of a resumed guest and make its random numbers its own.

        Args:
            epoch: seconds since 1970, UTC.
        """
        self._ask(MARGIN_S, op="wake", epoch=epoch, seed=_text(secrets.token_bytes(32)))

    def run(self, argv: Sequence[str], env: Mapping[str, str], timeout_s: float, stdin: bytes = b"") -> Finished:
        """Run a command as root.

        Raises:
            subprocess.TimeoutExpired: the limit passed; the command's process group was killed.
        """
        command = {"argv": list(argv), "env": dict(env), "timeout_s": timeout_s, "input": _text(stdin)}
        reply = self._answer(self._send(op="run", **command), timeout_s + MARGIN_S)
        out, err = base64.b64decode(reply["out"]), base64.b64decode(reply["err"])
        if reply.get("is_late"):
            raise subprocess.TimeoutExpired(list(argv), timeout_s, out, err)
        return Finished(reply["code"], out.decode(errors="replace"), err.decode(errors="replace"))

    def put(self, local: Path, remote: str) -> None:
        """Copy a file into the guest; missing folders are made."""
        with local.open("rb") as file:
            about = os.fstat(file.fileno())
            left = about.st_size
            number = self._send(op="put", path=remote, mode=about.st_mode & 0o7777, size=left)
            self._socket.settimeout(TRANSFER_TIMEOUT_S)
            while left:
                part = file.read(min(BLOCK_BYTES, left))
                self._socket.sendall(part)
                left -= len(part)
        self._answer(number, TRANSFER_TIMEOUT_S)

    def get(self, remote: str, local: Path) -> None:
        """Copy a file from the guest.

        Raises:
            AgentError: the guest could not read all of it.
        """
        number = self._send(op="get", path=remote)
        left = self._answer(number, TRANSFER_TIMEOUT_S)["size"]
        with local.open("wb") as file:
            while left:
                part = self._exactly(min(left, BLOCK_BYTES))
                file.write(part)
                left -= len(part)
        self._answer(number, TRANSFER_TIMEOUT_S)

    def close(self) -> None:
        """End the conversation; the guest goes on."""
        self._socket.close()

    def _ask(self, timeout_s: float, **request: Any) -> dict[str, Any]:
        return self._answer(self._send(**request), timeout_s)

    def _send(self, **request: Any) -> int:
        self._last_id += 1
        raw = json.dumps({"id": self._last_id, **request}).encode()
        self._socket.settimeout(TRANSFER_TIMEOUT_S)
        self._socket.sendall(struct.pack(">I", len(raw)) + raw)
        return self._last_id

    def _answer(self, number: int, timeout_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while True:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            (size,) = struct.unpack(">I", self._exactly(4))
            reply: dict[str, Any] = json.loads(self._exactly(size))
            if reply["id"] != number:
                continue  # of a request that was given up
            if "error" in reply:
                raise AgentError(reply["error"])
            return reply

    def _exactly(self, size: int) -> bytes:
        out = bytearray()
        while len(out) < size:
            part = self._socket.recv(min(size - len(out), BLOCK_BYTES))
            if not part:
                raise ConnectionError("the guest is gone")
            out += part
        return bytes(out)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
