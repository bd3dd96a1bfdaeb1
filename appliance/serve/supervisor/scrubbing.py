"""The scrub of a host: what serves is read again from the disk, and a difference is an incident (threat T18).

Owns which files are read, and what follows. The timer's unit, `appliance serve` and `appliance scrub` all call
`scrub_release`. Rules:
- the models, programs and libraries of the release that serves are read; their places come from the signed contents;
- a fault is recorded before anything else: from then on no start of that model succeeds;
- its engine is ended by SIGBUS, the signal that the kernel itself sends: what watches it then does what it does for a
  refused page. Only a process that runs this release's engine is ever ended;
- a fault in a program or library stops every model;
- nothing is repaired: `appliance install` does that.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from appliance.engine_program import PROGRAM
from appliance.events import INCIDENT, SCRUB_ENDED, Event, OnEvent
from appliance.host.engine.state import read_state
from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.prefix import Prefix, make_folder
from appliance.host.models.incident import RUNTIME, UNREADABLE, Incident, make_incident, record_incident
from appliance.host.models.scrub import SHORTAGES, FileFault, FileScrub, scrub_file
from appliance.host.release.release import Release
from appliance.host.release.release_check import check_engine_files
from appliance.serve.supervisor.engine_states import find_engine_socket
from bundles.contents.contents import Model
from bundles.progress import OnProgress, ignore
from signing.errors import ApplianceError

EVERY = timedelta(days=7)
"""How old the last scrub is when `appliance serve` begins another; the timer of a whole machine has the same."""
_MAX_BYTES = 4 << 10
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class ModelScrub:
    """The scrub of one model.

    Args:
        model: its name.
        file: what was found; None where its file could not be opened.
        incident: what was recorded; None where every byte is the signed one.
    """

    model: str
    file: FileScrub | None
    incident: Incident | None


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """A scrub of one release.

    Args:
        models: one for each that was read.
        runtime: what is wrong with programs, libraries or configuration of its engines.
    """

    models: tuple[ModelScrub, ...]
    runtime: tuple[ApplianceError, ...]

    def errors(self) -> list[ApplianceError]:
        """Every fault; none where all is as it was signed."""
        return [*self.runtime, *(one.incident.error() for one in self.models if one.incident is not None)]


@dataclass(frozen=True, slots=True)
class LastScrub:
    """The record of the last scrub of all models: when it ended, in UTC, how many models it read, and its faults."""

    time: str
    models: int
    faults: int


def scrub_release(
    release: Release,
    names: Iterable[str],
    now: Callable[[], datetime],
    on_event: OnEvent,
    on_progress: OnProgress = ignore,
) -> ScrubReport:
    """Read what serves from the disk, and stop each model whose bytes are not the signed ones.

    Args:
        release: opened; its chain of trust holds.
        names: of the models to read.
        now: the clock, in UTC.
        on_event: gets an event for each incident, and one for the end.
        on_progress: called with bytes done; what it raises ends the scrub.

    Returns:
        What was found. Faults are recorded, and their engines are ended.

    Raises:
        OSError: an incident cannot be recorded; its engine is ended nevertheless. Or the machine lacks memory or
            descriptors to read a file.
    """
    wanted = [model for model in release.contents.models if model.name in set(names)]
    runtime = _runtime_errors(release)
    found = []
    for model in wanted:
        detail = f"{runtime[0].subject}: {runtime[0].code}" if runtime else ""
        scrubbed, fault = (None, FileFault(RUNTIME, detail)) if runtime else _scrub_model(release, model, on_progress)
        incident = _stop(release, model, fault, now(), on_event) if fault is not None else None
        found.append(ModelScrub(model.name, scrubbed, incident))
    report = ScrubReport(tuple(found), runtime)
    if len(wanted) == len(release.contents.models):
        faults = sum(one.incident is not None for one in found)
        _write_last(release.prefix, LastScrub(now().strftime(_TIME), len(found), faults))
    on_event(Event(SCRUB_ENDED, {"status": len(report.errors()), "models": ",".join(one.name for one in wanted)[:512]}))
    return report


def is_due(prefix: Prefix, now: datetime) -> bool:
    """Whether the last scrub of a host is as old as `EVERY`, or lies in the future, or none is recorded."""
    last = read_last_scrub(prefix)
    return last is None or not timedelta(0) <= now - _parse_time(last.time) < EVERY


def read_last_scrub(prefix: Prefix) -> LastScrub | None:
    """Read the record of the last scrub; None where there is none, or something that is none."""
    try:
        with open(_last_file(prefix), "rb", opener=_open_no_link) as file:
            last = LastScrub(**json.loads(file.read(_MAX_BYTES)))
        is_right = type(last.models) is int and type(last.faults) is int and _parse_time(last.time) is not None
        return last if is_right else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def describe_last_scrub(last: LastScrub) -> str:
    """The last scrub in words."""
    faults = {0: "no fault", 1: "1 fault"}.get(last.faults, f"{last.faults} faults")
    return f"{last.time}, {last.models} model{'s' * (last.models != 1)} read, {faults}"


def end_engine(release: Release, model: str) -> bool:
    """End the engine of a model by SIGBUS, so that what watches it reads the recorded incident.

    Args:
        release: the installed one.
        model: the model's name.

    Returns:
        Whether a process was ended: one that runs this release's engine, and no other, whatever the state names.
    """
    socket = find_engine_socket(release, model)
    state = read_state(socket) if socket is not None else None
    if state is None or state.pid <= 1:
        return False
    try:
        process = os.pidfd_open(state.pid)
    except OSError:
        return False
    try:
        if not is_engine(release, state.pid):
            return False
        signal.pidfd_send_signal(process, signal.SIGBUS)
    except OSError:
        return False
    finally:
        os.close(process)
    return True


def is_engine(release: Release, pid: int) -> bool:
    """Whether a process runs the engine's program of a release.

    Args:
        release: the installed one.
        pid: from a state, which nobody trusts.

    Raises:
        OSError: there is no such process, or this user may not see what it runs.
    """
    return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)") == str(release.runtime / PROGRAM)


def _runtime_errors(release: Release) -> tuple[ApplianceError, ...]:
    try:
        check_engine_files(release)
    except ApplianceError as error:
        others, error.others = error.others, ()
        return (error, *others)
    return ()


def _scrub_model(release: Release, model: Model, on_progress: OnProgress) -> tuple[FileScrub | None, FileFault | None]:
    file, path = release.model_file(model)
    try:
        found = scrub_file(file, path, on_progress)
    except OSError as error:
        if error.errno in SHORTAGES:
            raise
        return None, FileFault(UNREADABLE, f"{path}: {error.strerror}")
    return found, found.fault


def _stop(release: Release, model: Model, fault: FileFault, now: datetime, on_event: OnEvent) -> Incident:
    file, _ = release.model_file(model)
    incident = make_incident(model.name, file.sha256, fault.cause, fault.detail, now)
    try:
        record_incident(release.prefix, incident)
    finally:
        end_engine(release, model.name)
    on_event(Event(INCIDENT, {"model": model.name, "digest": file.sha256, "reason": incident.reason}))
    return incident


def _write_last(prefix: Prefix, last: LastScrub) -> None:
    with suppress(OSError):  # a full disk; the scrub itself is done
        make_folder(prefix.engine_state)
        write_file(_last_file(prefix), json.dumps(asdict(last)).encode() + b"\n")


def _parse_time(text: str) -> datetime:
    return datetime.strptime(text, _TIME).replace(tzinfo=timezone.utc)


def _last_file(prefix: Prefix) -> Path:
    return prefix.engine_state / "scrub.json"


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
