"""The state of one engine: a small JSON file beside its socket.

Owns the file's name, its format, and the words for why an engine is stopped. It is written by what starts the engine:
the program of the engine's unit where systemd runs it, the engine keeper under `appliance serve`. The gateway and
`appliance status` read it.

Rules:
- the file is replaced as a whole: no reader sees a half;
- no reader trusts it: a process that has taken over the engine can write it, too. What does not fit the format counts
  as no state, and no text of it can break a header or a terminal;
- it holds what the starter knows. Whether the engine answers at this moment is `EngineClient.state`.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from appliance.host.layout.atomic_file import write_file
from appliance.host.models import incident
from appliance.host.models.incident import WORDS
from appliance.host.models.levels import LEVEL_CODE
from signing.errors import ApplianceError, DamagedError, DriftError, NotTrustedError

STARTING, SERVING, RESTARTING, STOPPED = "starting", "serving", "restarting", "stopped"
UNLOADED = "unloaded"
"""Of a model that is loaded on demand, and that nobody needs now."""
BYTES_DIFFER = WORDS[incident.BYTES]
UNREADABLE = WORDS[incident.UNREADABLE]
NO_ANSWER = "its engine does not answer"
NOT_STARTED = "nothing starts its engine again"
UNIT_STOPPED = "its service was stopped"
CANNOT_START = "it cannot run on this host"
LEVEL_TOO_LOW = "this host does not give the level that the site demands"
INCIDENT_REASONS = frozenset(WORDS.values())
"""The reasons of a model whose bytes are not right or not there: an install repairs it."""

MAX_REASON = 200
_MAX_BYTES = 4 << 10
_MAX_PID = 1 << 22
_STATUSES = (STARTING, SERVING, RESTARTING, STOPPED, UNLOADED)
_WORD = re.compile(r"[A-Za-z0-9-]{0,16}")
_MODE = 0o640


@dataclass(frozen=True, slots=True)
class EngineState:
    """What an engine is.

    Args:
        status: `STARTING`, `SERVING`, `RESTARTING` (it has ended, and is started again), `STOPPED` (for good) or
            `UNLOADED`.
        reason: why it does not serve, for people; at most `MAX_REASON` printable characters.
        level: how its bytes are bound to the signed ones; see `appliance.host.models.served_file`. Empty until the
            model is verified.
        isolation: `netns` or `none`; empty until it is known.
        pid: of the engine, or of the program that verifies for it; 0 where there is none.
    """

    status: str
    reason: str = ""
    level: str = ""
    isolation: str = ""
    pid: int = 0

    @property
    def is_incident(self) -> bool:
        """Whether it was stopped since its bytes are not the signed ones, or cannot be read."""
        return self.status == STOPPED and self.reason in INCIDENT_REASONS


def state_file(socket: Path) -> Path:
    """The file that holds the state of the engine that listens here."""
    return socket.with_suffix(".json")


def write_state(socket: Path, state: EngineState) -> None:
    """Replace the state of an engine.

    Args:
        socket: where it listens, in a folder that exists.
        state: the new one.

    Raises:
        OSError: it cannot be written.
    """
    write_file(state_file(socket), json.dumps(asdict(state)).encode() + b"\n", _MODE)


def read_state(socket: Path) -> EngineState | None:
    """Read the state of an engine.

    Args:
        socket: where it listens.

    Returns:
        None where there is no state, or something that is none.
    """
    try:
        descriptor = os.open(state_file(socket), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
        return parse_state(json.loads(data)) if len(data) <= _MAX_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None


def parse_state(value: Any) -> EngineState:
    """Check a parsed state.

    Args:
        value: any JSON value.

    Raises:
        ValueError: it is no state.
    """
    if not isinstance(value, dict) or value.keys() != EngineState.__dataclass_fields__.keys():
        raise ValueError("not the fields of a state")
    texts = [value[name] for name in ("status", "reason", "level", "isolation")]
    if not all(isinstance(text, str) for text in texts) or type(value["pid"]) is not int:
        raise ValueError("a field of another type")
    state = EngineState(**value)
    is_reason = len(state.reason) <= MAX_REASON and state.reason.isprintable()
    is_words = _WORD.fullmatch(state.level) and _WORD.fullmatch(state.isolation)
    if state.status not in _STATUSES or not is_reason or not is_words or not 0 <= state.pid <= _MAX_PID:
        raise ValueError("a field with another value")
    return state


def stop_reason(error: ApplianceError | OSError) -> str:
    """Why an engine is stopped for good after this error, for people; details are for the log."""
    if isinstance(error, OSError):
        return UNREADABLE
    if error.code == incident.INCIDENT_CODE:
        return next((reason for reason in WORDS.values() if error.found.startswith(reason)), BYTES_DIFFER)
    if error.code == LEVEL_CODE:
        return LEVEL_TOO_LOW
    return BYTES_DIFFER if isinstance(error, DamagedError | NotTrustedError | DriftError) else CANNOT_START
