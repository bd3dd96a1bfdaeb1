"""The states of the engines of a release, for `appliance status`.

Owns the choice of where to look: beside the sockets of `appliance serve` where that runs, else beside those of systemd.
A model that is stopped is a difference from what was installed, and the error names the way back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from appliance.host.engine.client import EngineClient
from appliance.host.engine.process import socket_path
from appliance.host.engine.state import (
    INCIDENT_REASONS,
    NOT_STARTED,
    STOPPED,
    EngineState,
    read_state,
)
from appliance.host.layout.unit_files import engine_socket, unit_of_release
from appliance.host.machine.thread_choice import FIXED, ThreadChoice, read_choice
from appliance.host.machine.threads import thread_count
from appliance.host.models.incident import read_incident
from appliance.host.process.systemctl import UnitState
from appliance.host.release.release import Release
from appliance.host.release.rendered_configuration import read_configuration
from appliance.serve.supervisor import run_dir
from signing.errors import ApplianceError, DriftError


def read_engine_states(release: Release, services: Iterable[UnitState] = ()) -> dict[str, EngineState]:
    """Read the state of each engine of a release, by the model's name. Changes nothing.

    Args:
        release: the installed one.
        services: its units, as systemd shows them.

    Returns:
        An entry for each engine that was ever started since the boot; none where nothing serves.
    """
    found = {}
    is_serve = run_dir.read_serving(release.prefix) is not None
    ended = {unit.name for unit in services if unit.has_ended}
    for model in release.contents.models:
        socket = find_engine_socket(release, model.name)
        if socket is None or read_state(socket) is None:
            continue
        state = EngineClient(model.name, socket, "").state()
        # systemd knows of itself when it gives up, and writes that nowhere.
        if not is_serve and state.status != STOPPED and unit_of_release(release.path, model.name) in ended:
            state = EngineState(STOPPED, NOT_STARTED)
        found[model.name] = state
    return found


def find_engine_socket(release: Release, model: str) -> Path | None:
    """Where the engine of a model listens, or would listen.

    Args:
        release: the installed one.
        model: the model's name.

    Returns:
        Beside it lies the engine's state. None below a prefix where nothing serves.
    """
    serving = run_dir.read_serving(release.prefix)
    if serving is not None:
        return socket_path(Path(str(serving.get("sockets", ""))), model)
    return engine_socket(release.prefix, release.path, model) if release.prefix.is_system else None


def describe_threads(release: Release) -> str:
    """How many threads an engine that is started now gets, and how that was chosen, for people."""
    with contextlib.suppress(DriftError):  # which `status` names by itself
        fixed = {engine.threads for engine in read_configuration(release).engines.values()} - {0}
        if fixed:
            return ThreadChoice(max(fixed), FIXED).describe()
    return (read_choice(release.prefix.engine_state) or ThreadChoice(thread_count())).describe()


def stopped_engines(release: Release, states: dict[str, EngineState]) -> list[ApplianceError]:
    """The engines that nothing starts again: one error for each, whose hint is the way back.

    Args:
        release: the installed one.
        states: from `read_engine_states`.
    """
    is_serve = run_dir.read_serving(release.prefix) is not None
    return [
        DriftError(
            "engine.stopped",
            name,
            expected="an engine that serves",
            found=state.reason,
            hint=_next_step(release, name, state, is_serve=is_serve),
        )
        for name, state in states.items()
        if state.status == STOPPED
    ]


def incident_errors(release: Release, states: dict[str, EngineState]) -> list[ApplianceError]:
    """The recorded incidents of a release's models: one error for each whose engine does not report it itself.

    Args:
        release: the installed one.
        states: from `read_engine_states`.
    """
    found = (
        read_incident(release.prefix, release.model_file(one)[0].sha256, one.name) for one in release.contents.models
    )
    reported = {name for name, state in states.items() if state.status == STOPPED}
    return [one.error() for one in found if one is not None and one.model not in reported]


def _next_step(release: Release, model: str, state: EngineState, *, is_serve: bool) -> str:
    if state.reason in INCIDENT_REASONS:
        return "run the same `appliance install` again: it repairs the release"
    if is_serve:
        return f"see its log ({run_dir.engine_log(release.prefix, model)}); end `appliance serve` and start it again"
    unit = unit_of_release(release.path, model)
    return f"see `journalctl -u {unit}`; then start it again: systemctl restart {unit}"
