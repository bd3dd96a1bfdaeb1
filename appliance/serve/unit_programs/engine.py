"""The program of an engine's unit: it verifies, and then becomes the engine. Started by systemd, in the unit's sandbox:
`venv/bin/python -I -B -m appliance.serve.engine_unit RELEASE MODEL`.

Owns the way from the unit to `llama-server`. Rules (threats T16, T17, T78):
- the chain of trust, the program, its libraries and its configuration are compared before the model is opened;
- the engine gets the very descriptor whose bytes were compared, and takes this process's place: nothing is between;
- what it prints reaches the journal through `engine_log`, a process that ends with it;
- the sandbox is tried from inside: the state beside the socket holds what was found, not what the unit asks for;
- a model with a recorded incident is not started until an install has repaired it;
- an engine that has ended too often is not started; the start after that is a person's;
- a model that is loaded on demand is loaded when the gateway's mark is there, and verified after that. The program that
  passes on what the engine prints ends the engine when the mark has gone;
- where this ends in its place, the state shows whether systemd starts it again, and why it does not serve.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep

from appliance.clock import utc_now
from appliance.events import INCIDENT, Event
from appliance.host.engine import end_request, engine_log
from appliance.host.engine.crashes import CRASHED, MAX_CRASHES, clear_crashes, read_crashes
from appliance.host.engine.engine_command import engine_command
from appliance.host.engine.load_mark import is_marked
from appliance.host.engine.state import (
    INCIDENT_REASONS,
    RESTARTING,
    STARTING,
    STOPPED,
    UNLOADED,
    EngineState,
    stop_reason,
    write_state,
)
from appliance.host.layout.prefix import Prefix
from appliance.host.layout.unit_files import engine_socket, load_mark, trial_mark, unit_of_release
from appliance.host.models.incident import INCIDENT_CODE, refuse_incident
from appliance.host.models.served_file import open_verified
from appliance.host.process.child import NETNS, NONE
from appliance.host.release.release import open_release
from appliance.host.release.release_check import check_engine_files
from appliance.serve.supervisor.launch_plan import ServedModel, measured_threads, read_launch
from appliance.serve.unit_programs import startup
from signing.errors import ApplianceError, ApplyBrokenError, UsageError

_POLL_S = 0.1
_LISTENING = 3
"""The descriptor of the program beside the engine, by which it gets requests to end that."""


def start(prefix: Prefix, name: str, model: str) -> None:
    """Verify one model of a release, and become its engine. Every outcome is written as the engine's state.

    Args:
        prefix: the host.
        name: of the release's folder.
        model: the model's name.

    Raises:
        DamagedError, NotTrustedError, DriftError: the bytes are not those that were signed and rendered.
        UsageError: there is no such model.
        HostUnfitError: this host does not give the level that the site demands.
        ApplyBrokenError: the engine has ended too often; see `appliance.host.engine.crashes`.
        OSError: a file cannot be read, or the state cannot be written.
    """
    path = prefix.releases / name
    listens_at = engine_socket(prefix, path, model)
    _refuse_after_crashes(path, model, listens_at)
    write_state(listens_at, EngineState(STARTING, pid=os.getpid()))
    try:
        _become_engine(prefix, path, model, listens_at)
    except (ApplianceError, OSError) as error:
        is_final = startup.exit_code(error) in startup.FINAL_EXITS
        state = EngineState(STOPPED, stop_reason(error)) if is_final else EngineState(RESTARTING)
        with contextlib.suppress(OSError):  # the error itself is what the journal needs
            write_state(listens_at, state)
        raise


def measure_isolation(net: Path = Path("/proc/self/net/dev")) -> str:
    """`netns` where this process sees no interface but loopback and may open no socket to a network, else `none`."""
    interfaces = {line.split(":")[0].strip() for line in net.read_text("ascii").splitlines() if ":" in line}
    is_closed = interfaces <= {"lo"} and not any(map(_may_open, (socket.AF_INET, socket.AF_INET6)))
    return NETNS if is_closed else NONE


def _await_mark(mark: Path, listens_at: Path) -> None:
    """Wait until the model is to be loaded."""
    write_state(listens_at, EngineState(UNLOADED, pid=os.getpid()))
    while not is_marked(mark):
        sleep(_POLL_S)
    write_state(listens_at, EngineState(STARTING, pid=os.getpid()))


def _find_served(prefix: Prefix, path: Path, model: str) -> ServedModel:
    release = open_release(prefix, path, utc_now(), is_on_trial=trial_mark(prefix, path).exists())
    check_engine_files(release)
    return _find(read_launch(release, lambda: measured_threads(release)).models, model)


def _become_engine(prefix: Prefix, path: Path, model: str, listens_at: Path) -> None:
    served, mark = _find_served(prefix, path, model), load_mark(prefix, path, model)
    if served.is_on_demand and not is_marked(mark):
        refuse_incident(prefix, served.spec.file, model)
        _await_mark(mark, listens_at)
        served = _find_served(prefix, path, model)
    refuse_incident(prefix, served.spec.file, model)
    with open_verified(served.spec.file, served.spec.store, min_level=served.spec.min_level) as opened:
        command, environment = engine_command(served.spec, opened, listens_at)
        write_state(listens_at, EngineState(STARTING, "", opened.level, measure_isolation(), os.getpid()))
        # The folder outlives the engine, for its state; no engine listens where a socket lies already.
        listens_at.unlink(missing_ok=True)
        os.chdir(served.spec.runtime)
        with ExitStack() as stack:
            listening = None
            with contextlib.suppress(OSError):  # an engine that nobody can end serves as well
                listening = stack.enter_context(end_request.listen(listens_at)).fileno()
            become(command, environment, opened.fd, mark if served.is_on_demand else None, listening)


def become(
    command: list[str],
    environment: dict[str, str],
    descriptor: int,
    mark: Path | None = None,
    listening: int | None = None,
) -> None:
    """Become the engine. What it prints goes through a program that leaves out the texts of users, to standard error.

    That program also ends the engine where the gateway asks for it.

    Args:
        command: its absolute path, and its arguments.
        environment: the whole of it.
        descriptor: that it inherits; the other program does not.
        mark: the file without which the other program ends the engine; None for one that always runs.
        listening: of a socket for requests to end it, which the other program inherits; None for no such socket.

    Raises:
        OSError: a program cannot be started; this process then writes to standard error as before.
    """
    source, target = os.pipe()
    before = os.dup(2)
    words = [sys.executable, "-I", "-S", "-B", engine_log.__file__, str(mark or "")]
    actions = [(os.POSIX_SPAWN_DUP2, source, 0)]
    if listening is not None:
        actions.append((os.POSIX_SPAWN_DUP2, listening, _LISTENING))
        words.append(str(_LISTENING))
    os.posix_spawn(words[0], words, {}, file_actions=actions)
    os.close(source)
    try:
        for output in (1, 2):
            os.dup2(target, output)
        os.set_inheritable(descriptor, True)
        os.execve(command[0], command, environment)
    finally:
        os.dup2(before, 2)
        os.close(target)


def _refuse_after_crashes(path: Path, model: str, listens_at: Path) -> None:
    if len(read_crashes(listens_at, monotonic())) < MAX_CRASHES:
        return
    # This refusal ends what systemd tries by itself. The next start is a person's.
    clear_crashes(listens_at)
    write_state(listens_at, EngineState(STOPPED, CRASHED))
    raise ApplyBrokenError(
        "engine.keeps-ending",
        model,
        expected="an engine that keeps running",
        found=CRASHED,
        hint=f"see the lines before this one, then start it again: systemctl restart {unit_of_release(path, model)}",
    )


def find_event(error: startup.UnitError, words: list[str]) -> Event | None:
    """The event that an end of the start is: an incident, unless that is on record already.

    Args:
        error: with which it ended.
        words: of the command line.
    """
    is_recorded = isinstance(error, ApplianceError) and error.code == INCIDENT_CODE
    reason = stop_reason(error) if startup.exit_code(error) in startup.FINAL_EXITS else ""
    if is_recorded or reason not in INCIDENT_REASONS:
        return None
    return Event(INCIDENT, {"model": words[2], "reason": reason})


def _may_open(family: int) -> bool:
    try:
        socket.socket(family, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True


def _find(models: tuple[ServedModel, ...], name: str) -> ServedModel:
    for served in models:
        if served.model.name == name:
            return served
    raise UsageError(
        "unit.no-model",
        name,
        expected=f"one of {', '.join(served.model.name for served in models)}",
        found="no such model in the release",
        hint="run the same `appliance install` again: it writes the units anew",
    )


def main() -> int:
    """Entry point of the unit."""
    return startup.run(
        lambda: start(Prefix(Path("/")), sys.argv[1], sys.argv[2]), lambda error: find_event(error, sys.argv)
    )


if __name__ == "__main__":
    sys.exit(main())
