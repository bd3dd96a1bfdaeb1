"""How often an engine has ended by itself, and when it is not started again.

Owns the limit and the record of an engine that systemd runs: a small file beside its socket, with the moments of its
ends. Such an engine leaves no process that could count. `appliance serve` counts in memory.

Rules:
- after `MAX_CRASHES` within `WINDOW_S` the model is stopped: who can end an engine with one request must not keep its
  machine busy with loading for ever;
- moments are those of the clock that starts at boot: no change of the time of day moves them, and a boot clears them;
- nobody trusts the record: the engine can write it. It decides about this engine alone.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path

from appliance.host.layout.atomic_file import write_file

MAX_CRASHES = 5
WINDOW_S = 600.0
CRASHED = f"its engine ended {MAX_CRASHES} times in {WINDOW_S / 60:.0f} minutes"
"""The reason of a state, for people."""
_MAX_BYTES = 4 << 10
_MODE = 0o640


def recent_crashes(times: Iterable[float], now: float) -> tuple[float, ...]:
    """Those moments that still count, at most `MAX_CRASHES`.

    Args:
        times: seconds of `time.monotonic`, in their order.
        now: of the same clock.
    """
    return tuple(at for at in times if 0 <= now - at <= WINDOW_S)[-MAX_CRASHES:]


def crash_file(socket: Path) -> Path:
    """The file that holds the record of the engine that listens here."""
    return socket.with_suffix(".crashes")


def read_crashes(socket: Path, now: float) -> tuple[float, ...]:
    """Read the crashes that still count; none where there is no record, or something that is none.

    Args:
        socket: where the engine listens.
        now: seconds of `time.monotonic`.
    """
    try:
        descriptor = os.open(crash_file(socket), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            times = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return ()
    if not isinstance(times, list) or not all(type(at) is float and math.isfinite(at) for at in times):
        return ()
    return recent_crashes(times, now)


def record_crash(socket: Path, now: float) -> tuple[float, ...]:
    """Add one crash to the record.

    Args:
        socket: where the engine listened, in a folder that exists.
        now: seconds of `time.monotonic`.

    Returns:
        The crashes that count, this one included.

    Raises:
        OSError: it cannot be written.
    """
    times = recent_crashes((*read_crashes(socket, now), float(now)), now)
    write_file(crash_file(socket), json.dumps(times).encode() + b"\n", _MODE)
    return times


def clear_crashes(socket: Path) -> None:
    """Forget all crashes."""
    with contextlib.suppress(OSError):
        crash_file(socket).unlink(missing_ok=True)
