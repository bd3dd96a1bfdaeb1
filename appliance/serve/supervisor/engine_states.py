"""The states of the engines of a release, for `appliance status`.

Owns the choice of where to look: beside the sockets of `appliance serve` where that runs, else beside those of systemd.
"""

from __future__ import annotations

from pathlib import Path

from appliance.host.engine.client import EngineClient
from appliance.host.engine.process import socket_path
from appliance.host.engine.state import EngineState, read_state
from appliance.host.layout.unit_files import engine_socket
from appliance.host.release.release import Release
from appliance.serve.supervisor import run_dir


def read_engine_states(release: Release) -> dict[str, EngineState]:
    """Read the state of each engine of a release, by the model's name. Changes nothing.

    Args:
        release: the installed one.

    Returns:
        An entry for each engine that was ever started since the boot; none where nothing serves.
    """
    found = {}
    serving = run_dir.read_serving(release.prefix)
    for model in release.contents.models:
        if serving is not None:
            socket = socket_path(Path(str(serving.get("sockets", ""))), model.name)
        elif release.prefix.is_system:
            socket = engine_socket(release.prefix, release.path, model.name)
        else:
            continue
        if read_state(socket) is not None:
            found[model.name] = EngineClient(model.name, socket, "").state()
    return found
