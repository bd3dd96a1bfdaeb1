#!/usr/bin/python3
"""The bed's agent inside a guest: runs commands and moves files over a virtio-serial port.

The port is a socket on the machine that runs the guest, so the guest needs no network. One request at a time.
Messages are 4 bytes of big-endian length and that much JSON; file bytes follow a message raw.

    {"id", "op": "ping"}                                             -> {"uptime"}
    {"id", "op": "wake", "epoch", "seed"}                            -> {}        after a resume
    {"id", "op": "run", "argv", "timeout_s", "env", "input"}         -> {"code", "out", "err", "is_late"}
    {"id", "op": "put", "path", "mode", "size"} + bytes              -> {}
    {"id", "op": "get", "path"}                                      -> {"size"} + bytes, then {}

Any reply may be {"error"} instead. Only for images of this bed: it gives root to whoever holds the other end.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import time
from typing import Any

PORT = "/dev/virtio-ports/org.airgap.test"
BLOCK_BYTES = 1 << 20
ENVIRONMENT = {
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
# linux/random.h
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207

Message = dict[str, Any]


class Port:
    """The guest's end of the channel."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDWR)

    def read(self, size: int) -> bytes:
        out = bytearray()
        while len(out) < size:
            part = os.read(self.descriptor, min(size - len(out), BLOCK_BYTES))
            if not part:  # nobody holds the other end yet
                time.sleep(0.05)
            out += part
        return bytes(out)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.descriptor, view[:BLOCK_BYTES]) :]

    def receive(self) -> Message:
        (size,) = struct.unpack(">I", self.read(4))
        message: Message = json.loads(self.read(size))
        return message

    def send(self, message: Message) -> None:
        raw = json.dumps(message).encode()
        self.write(struct.pack(">I", len(raw)) + raw)


def ping(port: Port, request: Message) -> Message:
    with open("/proc/uptime") as file:
        return {"uptime": float(file.read().split()[0])}


def wake(port: Port, request: Message) -> Message:
    """Set the clock, which stood still, and the random pool, which every resumed copy of this guest shares."""
    time.clock_settime(time.CLOCK_REALTIME, request["epoch"])
    seed = base64.b64decode(request["seed"])
    with open("/dev/urandom", "wb", buffering=0) as pool:
        fcntl.ioctl(pool, RNDADDENTROPY, struct.pack("ii", len(seed) * 8, len(seed)) + seed)
        fcntl.ioctl(pool, RNDRESEEDCRNG)
    return {}


def run(port: Port, request: Message) -> Message:
    """Run one command in a process group of its own, which ends with the time limit."""
    try:
        child = subprocess.Popen(
            request["argv"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/root",
            env={**ENVIRONMENT, **request["env"]},
            start_new_session=True,
        )
    except OSError as error:
        return _ended(127, b"", f"{error}\n".encode())
    try:
        out, err = child.communicate(base64.b64decode(request["input"]), timeout=request["timeout_s"])
    except subprocess.TimeoutExpired as late:
        os.killpg(child.pid, signal.SIGKILL)
        return {**_ended(-9, late.stdout or b"", late.stderr or b""), "is_late": True}
    return _ended(child.returncode, out, err)


def _ended(code: int, out: bytes, err: bytes) -> Message:
    return {"code": code, "out": base64.b64encode(out).decode(), "err": base64.b64encode(err).decode()}


def put(port: Port, request: Message) -> Message:
    """Write a file. Its bytes are taken off the port even where they cannot be written."""
    target, problem, left = -1, None, request["size"]
    try:
        os.makedirs(os.path.dirname(request["path"]) or "/", exist_ok=True)
        target = os.open(request["path"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        problem = error
    while left:
        view = memoryview(port.read(min(left, BLOCK_BYTES)))
        left -= len(view)
        try:
            while view and problem is None:
                view = view[os.write(target, view) :]
        except OSError as error:
            problem = error
    if target >= 0:
        os.fchmod(target, request["mode"])
        os.close(target)
    if problem is not None:
        raise problem
    return {}


def get(port: Port, request: Message) -> Message:
    """Send a file. What cannot be read is sent as zeros, and told afterwards."""
    with open(request["path"], "rb", buffering=0) as file:
        left, problem = os.fstat(file.fileno()).st_size, None
        port.send({"id": request["id"], "size": left})
        while left:
            part = b""
            try:
                part = file.read(min(left, BLOCK_BYTES)) if problem is None else b""
            except OSError as error:
                problem = error
            if not part and problem is None:
                problem = OSError("the file shrank while it was read")
            part = part or bytes(min(left, BLOCK_BYTES))
            port.write(part)
            left -= len(part)
    if problem is not None:
        raise problem
    return {}


def serve(port: Port) -> None:
    """Answer requests for ever."""
    operations = {"ping": ping, "wake": wake, "run": run, "put": put, "get": get}
    while True:
        request = port.receive()
        try:
            reply = operations[request["op"]](port, request)
        except (OSError, KeyError, ValueError) as error:  # told to whoever asked; the agent stays
            reply = {"error": f"{type(error).__name__}: {error}"}
        port.send({"id": request["id"], **reply})


if __name__ == "__main__":
    serve(Port(sys.argv[1] if len(sys.argv) > 1 else PORT))
