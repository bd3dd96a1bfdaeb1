"""Starts the engine on one model, asks it one question, and prints how that ended.

Runs as `python3 -I engine.py`, standard library only, with the question in `/work/trial.json`. Prints one JSON object:
`variant`, `code` (the engine's exit status before it was stopped; null where it still ran), `log` (the end of its
output), `status` (of the answer; 0 where there is none) and `body` (of the answer).

Rules:
- one CPU variant lies beside the engine at a time; the next one is tried only where the engine ends with SIGILL;
- the engine is on a UNIX socket, and is killed at the end.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

WORK = Path("/work")
SOCKET, LOG = "/tmp/engine.sock", Path("/tmp/engine.log")
MAX_TEXT_BYTES, MAX_BODY_BYTES = 16 << 10, 8 << 20


class Connection(http.client.HTTPConnection):
    """HTTP over the engine's socket."""

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


def ask(path: str, body: object, timeout_s: float) -> tuple[int, str]:
    """Send one request; the status is 0 where no answer comes."""
    connection = Connection("engine", timeout=timeout_s)
    try:
        data = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_BODY_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def run(trial: dict[str, object], library: str) -> dict[str, object]:
    """Start the engine with one CPU variant, wait until it is ready, and ask."""
    runtime, until = WORK / "runtime", time.monotonic() + float(str(trial["timeout_s"]))
    os.replace(WORK / "variants" / library, runtime / library)
    command, environment = trial["command"], trial["environment"]
    assert isinstance(command, list)
    assert isinstance(environment, dict)
    with LOG.open("wb") as log:
        engine = subprocess.Popen(
            command, cwd=runtime, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        status, body = 0, ""
        while engine.poll() is None and time.monotonic() < until:
            if ask("/health", None, 5)[0] == 200:
                status, body = ask(str(trial["path"]), trial["body"], max(1.0, until - time.monotonic()))
                break
            time.sleep(0.05)
        if status == 0 and time.monotonic() < until:
            # An engine that dies closes its socket first.
            with contextlib.suppress(subprocess.TimeoutExpired):
                engine.wait(10)
        code = engine.poll()
        engine.kill()
        engine.wait()
    (runtime / library).unlink()
    Path(SOCKET).unlink(missing_ok=True)
    ended = code if code is None or code >= 0 else 128 - code
    text = LOG.read_bytes()[-MAX_TEXT_BYTES:].decode("utf-8", "replace")
    return {"variant": library, "code": ended, "log": text, "status": status, "body": body}


def main() -> None:
    """Try the CPU variants until one does not end with SIGILL, and print what happened."""
    trial = json.loads((WORK / "trial.json").read_bytes())
    found: dict[str, object] = {}
    for library in trial["variants"]:
        found = run(trial, library)
        if found["code"] != 128 + signal.SIGILL:
            break
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
