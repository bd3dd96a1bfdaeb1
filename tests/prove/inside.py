"""What a proof runs inside the host: `python3 -I inside.py COMMAND [ARGUMENT…]`, standard library only.

Each command prints one JSON value. It runs on a bare host, so it imports nothing of this project.

    arm                                from now on, note every look for a route that finds none
    count                              what was noted since, and the kernel's own counters since the host started
    canary                             an attempt in a network namespace of its own, and one by DNS on loopback
    ask URL KEY_FILE QUESTION TOKENS   one question to the served model
    await URL SECONDS                  wait until the gateway calls itself ready
    flip FILE OFFSET                   turn one bit of a byte; the file's times stay
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

TRACING = "/sys/kernel/tracing"
BUFFER = f"{TRACING}/instances/prove"
# Where the kernel looks for the way of a packet, in every network namespace. An error means that there is none.
PROBES = ("ip_route_output_key_hash", "ip_route_output_flow", "ip6_dst_lookup_flow")
IS_ERROR = "ret >= 0xfffffffffffff001"
COUNTERS = {"Ip": ("OutNoRoutes",), "Udp": ("NoPorts",)}
COUNTERS_6 = ("Ip6OutNoRoutes", "Udp6NoPorts")
_LINE = re.compile(r"^\s*(?P<program>.+)-(?P<pid>\d+)\s+\[\d+\].*: (?P<probe>\w+): \(")
_CANARY = "import socket; socket.socket().connect_ex(('192.0.2.1', 443))"


def arm() -> None:
    """Start anew with an empty buffer."""
    os.makedirs(BUFFER, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        _write(f"{BUFFER}/events/prove/enable", "0")
    _write(f"{TRACING}/kprobe_events", "".join(f"r:prove/{name} {name} ret=$retval\n" for name in PROBES))
    for name in PROBES:
        _write(f"{BUFFER}/events/prove/{name}/filter", IS_ERROR)
    _write(f"{BUFFER}/trace", "")
    _write(f"{BUFFER}/events/prove/enable", "1")


def count() -> dict[str, Any]:
    """The programs that looked for a route in vain, and the counters."""
    found = [_LINE.match(line) for line in _read(f"{BUFFER}/trace").splitlines() if not line.startswith("#")]
    return {"refused": [match["program"].strip() if match else "?" for match in found], "counters": _counters()}


def canary() -> None:
    """Two attempts that must be counted."""
    subprocess.run(["unshare", "--net", sys.executable, "-I", "-c", _CANARY], check=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dns:
        dns.sendto(b"canary", ("127.0.0.1", 53))


def ask(url: str, key_file: str, question: str, tokens: str) -> dict[str, Any]:
    """One question; returns whatever the endpoint answers."""
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": int(tokens), "temperature": 0}
    headers = {"Authorization": f"Bearer {_read(key_file).strip()}", "Content-Type": "application/json"}
    started = time.monotonic()
    models = _call(f"{url}/v1/models", headers)
    body["model"] = models["body"]["data"][0]["id"] if models["status"] == 200 else "any"
    answer = _call(f"{url}/v1/chat/completions", headers, json.dumps(body).encode())
    return {**answer, "seconds": round(time.monotonic() - started, 1)}


def await_ready(url: str, limit_s: str) -> float:
    """Seconds until `/readyz` said 200.

    Raises:
        TimeoutError: it did not.
    """
    started, seen = time.monotonic(), "nothing"
    while time.monotonic() - started < float(limit_s):
        try:
            reply = _call(f"{url}/readyz", {})
        except OSError as error:
            seen = str(error)
        else:
            seen = f"{reply['status']} {reply['body']}"
            if reply["status"] == 200:
                return round(time.monotonic() - started, 1)
        time.sleep(0.5)
    raise TimeoutError(f"{url}/readyz after {limit_s} s: {seen}")


def flip(path: str, offset: str) -> dict[str, int]:
    """Turn the lowest bit of one byte."""
    status, at = os.stat(path), int(offset)
    with open(path, "r+b") as file:
        file.seek(at)
        before = file.read(1)[0]
        file.seek(at)
        file.write(bytes([before ^ 1]))
        file.flush()
        os.fsync(file.fileno())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return {"offset": at, "before": before, "after": before ^ 1}


def _call(url: str, headers: dict[str, str], data: bytes | None = None) -> dict[str, Any]:
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=240) as reply:
            return _answer(reply.status, reply.headers, reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error.code, error.headers, error.read())


def _answer(status: int, headers: Any, data: bytes) -> dict[str, Any]:
    own = {name.lower(): value for name, value in headers.items() if name.lower().startswith("appliance-")}
    try:
        body = json.loads(data)
    except ValueError:
        body = data.decode(errors="replace")
    return {"status": status, "headers": own, "body": body}


def _counters() -> dict[str, int]:
    lines = [line.split() for line in _read("/proc/net/snmp").splitlines()]
    found = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        protocol = names[0].rstrip(":")
        table = dict(zip(names[1:], values[1:], strict=True))
        found.update({f"{protocol}{name}": int(table[name]) for name in COUNTERS.get(protocol, ())})
    newer = dict(line.split() for line in _read("/proc/net/snmp6").splitlines())
    return {**found, **{name: int(newer[name]) for name in COUNTERS_6}}


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


if __name__ == "__main__":
    commands = {"arm": arm, "count": count, "canary": canary, "ask": ask, "await": await_ready, "flip": flip}
    print(json.dumps(commands[sys.argv[1]](*sys.argv[2:])))  # type: ignore[operator]
