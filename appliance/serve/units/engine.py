"""The program of an engine's unit: it verifies, and then becomes the engine. Started by systemd, in the unit's sandbox:
`venv/bin/python -I -B -m appliance.serve.units.engine RELEASE MODEL`.

Owns the way from the unit to `llama-server`. Rules (threats T16, T17):
- the chain of trust, the program, its libraries and its configuration are compared before the model is opened;
- the engine gets the very descriptor whose bytes were compared, and takes this process's place: nothing is between;
- what the sandbox really is is tried from inside, and written down beside the socket for the gateway to tell.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

from appliance.clock import utc_now
from appliance.host.engine.command import engine_command
from appliance.host.machine.threads import thread_count
from appliance.host.models.served_file import open_verified
from appliance.host.process.child import NETNS, NONE
from appliance.host.release.check import check_engine_files
from appliance.host.release.release import open_release
from appliance.host.tree.atomic_file import write_file
from appliance.host.tree.prefix import Prefix
from appliance.host.tree.units import engine_folder, trial_mark
from appliance.serve.supervisor.launch import Served, read_launch
from appliance.serve.units import startup
from signing.errors import UsageError

STATE_FILE = "engine.json"
"""Beside the socket: how the engine was started, as JSON with `level`, `isolation` and `pid`."""


def start(prefix: Prefix, name: str, model: str) -> None:
    """Verify one model of a release, and become its engine.

    Args:
        prefix: the host.
        name: of the release's folder.
        model: of the model.

    Raises:
        DamagedError, NotTrustedError, DriftError: the bytes are not those that were signed and rendered.
        UsageError: there is no such model.
    """
    path = prefix.releases / name
    release = open_release(prefix, path, utc_now(), is_on_trial=trial_mark(prefix, path).exists())
    check_engine_files(release)
    served = _find(read_launch(release, thread_count()).models, model)
    folder = engine_folder(prefix, release.bundle.value.manifest, model)
    with open_verified(served.spec.file, served.spec.store) as opened:
        command, environment = engine_command(served.spec, opened, folder / "engine.sock")
        state = {"level": opened.level, "isolation": isolation(), "pid": os.getpid()}
        write_file(folder / STATE_FILE, json.dumps(state).encode(), 0o640)
        os.set_inheritable(opened.fd, True)
        os.chdir(served.spec.runtime)
        os.execve(command[0], command, environment)


def isolation(net: Path = Path("/proc/self/net/dev")) -> str:
    """`netns` where this process sees no interface but loopback and may open no socket to a network, else `none`."""
    interfaces = {line.split(":")[0].strip() for line in net.read_text("ascii").splitlines() if ":" in line}
    is_closed = interfaces <= {"lo"} and not any(map(_may_open, (socket.AF_INET, socket.AF_INET6)))
    return NETNS if is_closed else NONE


def _may_open(family: int) -> bool:
    try:
        socket.socket(family, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True


def _find(models: tuple[Served, ...], name: str) -> Served:
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
    """What systemd starts."""
    return startup.run(lambda: start(Prefix(Path("/")), sys.argv[1], sys.argv[2]))


if __name__ == "__main__":
    sys.exit(main())
