"""The program at the end of an engine's unit. Started by systemd (`ExecStopPost`), after every end of the engine:
`venv/bin/python -I -B -m appliance.serve.engine_end RELEASE MODEL`.

Owns what users and operators see of an engine that has ended. Rules:
- an engine that the kernel ended by SIGBUS, or whose file cannot be read, is an incident: it is recorded, and its state
  shows that. systemd does not start it again (`RestartPreventExitStatus`), and every start refuses;
- an engine that ended by itself is counted (`appliance.host.engine.crashes`). Its state shows that it is started again,
  or that it is stopped: the next start then refuses, and systemd does not try another;
- what the start of the unit wrote about a stop is left as it is;
- one line goes to the journal, as `appliance serve` prints it. It holds no text of a user.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from appliance.clock import utc_now
from appliance.host.engine.crashes import CRASHED, MAX_CRASHES, clear_crashes, record_crash
from appliance.host.engine.engine_log import UNLOADING
from appliance.host.engine.load_mark import is_marked
from appliance.host.engine.state import RESTARTING, STOPPED, UNIT_STOPPED, EngineState, read_state, write_state
from appliance.host.layout.prefix import Prefix
from appliance.host.layout.unit_files import engine_socket, load_mark, unit_of_release
from appliance.host.models.engine_fault import end_incident
from appliance.host.models.incident import Incident, read_incident, record_incident
from appliance.host.process.child import describe_exit
from appliance.host.process.journal import write_report
from appliance.serve.supervisor.service_event import ENDED, GIVEN_UP, INCIDENT, ServiceEvent
from appliance.serve.unit_programs import startup
from signing.digest import parse_digest
from signing.errors import ApplianceError

_ORDERLY = ("success", "timeout")
"""Results of systemd (`SERVICE_RESULT`) for an engine that was stopped by a person or by an install."""
_SKIPPED = "exec-condition"
"""The result for an engine of another release, which was never started."""


def record_end(
    prefix: Prefix, name: str, model: str, environment: Mapping[str, str], now: float
) -> ServiceEvent | None:
    """Write the state of an engine that has ended.

    Args:
        prefix: the host.
        name: of the release's folder.
        model: the model's name.
        environment: what systemd sets about the end; see systemd.exec(5).
        now: seconds of `time.monotonic`.

    Returns:
        What an operator may want to know; None for an orderly end.

    Raises:
        OSError: the state cannot be written.
    """
    release = prefix.releases / name
    listened_at = engine_socket(prefix, release, model)
    written = read_state(listened_at)
    result = environment.get("SERVICE_RESULT", "success")
    if result == _SKIPPED or (written is not None and written.status == STOPPED):
        return None
    is_unloaded = _exit_code(environment) == 128 + UNLOADING
    if is_unloaded and (result in _ORDERLY or not is_marked(load_mark(prefix, release, model))):
        # systemd starts the unit again at once. It then waits, or loads where the gateway has set the mark again. For a
        # model that is always loaded, it soon gives up.
        write_state(listened_at, EngineState(RESTARTING))
        return None
    if result in _ORDERLY:
        clear_crashes(listened_at)
        write_state(listened_at, EngineState(STOPPED, UNIT_STOPPED))
        return None
    how = _describe(environment)
    found, is_new = _find_incident(prefix, release, model, environment)
    if found is not None:
        write_state(listened_at, EngineState(STOPPED, found.reason))
        event = ServiceEvent(INCIDENT, model, f"{found.reason}: {found.detail}", found.error().hint)
        return event if is_new else None
    if len(record_crash(listened_at, now)) < MAX_CRASHES:
        write_state(listened_at, EngineState(RESTARTING, f"its engine ended: {how}"))
        return ServiceEvent(ENDED, model, how)
    write_state(listened_at, EngineState(STOPPED, CRASHED))
    unit = unit_of_release(release, model)
    return ServiceEvent(GIVEN_UP, model, f"{CRASHED}, the last with {how}", f"systemctl restart {unit}")


def _find_incident(
    prefix: Prefix, release: Path, model: str, environment: Mapping[str, str]
) -> tuple[Incident | None, bool]:
    """The incident of a model's file, and whether this end has found it; what found it before has reported it."""
    try:
        # Its name ends the release's folder; the folder above the file is named by the signed sha256.
        config = json.loads((release / "config" / f"engine-{model}.json").read_bytes())
        store = Path(str(config["store"]))
        file = parse_digest(store.parent.name, str(store))
    except (ApplianceError, OSError, ValueError, KeyError, TypeError):
        return None, False
    if store.parent.parent != prefix.models:
        return None, False
    code = _exit_code(environment)
    found = read_incident(prefix, file, model)
    if found is not None:
        return found, False
    found = end_incident(model, file, store, -1 if code is None else code, utc_now())
    if found is not None:
        with contextlib.suppress(OSError):  # systemd does not start it again in any case
            record_incident(prefix, found)
    return found, True


def _exit_code(environment: Mapping[str, str]) -> int | None:
    """The exit status; 128 and the signal's number where a signal ended it. None where systemd states none."""
    status = environment.get("EXIT_STATUS", "")
    if status.isdigit():
        return int(status)
    number = signal.Signals.__members__.get(f"SIG{status}")
    return None if number is None else 128 + number


def _describe(environment: Mapping[str, str]) -> str:
    code = _exit_code(environment)
    return "an unknown status" if code is None else describe_exit(code)


def main() -> int:
    """Entry point of the unit."""

    def program() -> None:
        event = record_end(Prefix(Path("/")), sys.argv[1], sys.argv[2], os.environ, time.monotonic())
        if event is not None:
            write_report(event.line(), event.event(), os.environ, sys.stderr)

    return startup.run(program)


if __name__ == "__main__":
    sys.exit(main())
