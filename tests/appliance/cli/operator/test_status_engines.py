"""`status` shows what each engine does, and why one was stopped."""

from __future__ import annotations

import json
from pathlib import Path

from appliance.host.engine.process import socket_path
from appliance.host.engine.state import BYTES_DIFFER, STOPPED, EngineState, write_state
from appliance.serve.supervisor import run_dir
from tests.appliance.sim_host import new_host
from tests.attacks.harness import command


def test_engine_that_was_stopped_is_shown_with_its_reason(tmp_path: Path) -> None:
    host = new_host(tmp_path)
    host.install()
    words = ("status", "--prefix", host.prefix.root)
    assert json.loads(command(*words, "--json").out)["engines"] == []
    with run_dir.hold(host.prefix), run_dir.sockets(host.prefix) as folder:
        write_state(socket_path(folder, "toy"), EngineState(STOPPED, BYTES_DIFFER))
        [engine] = json.loads(command(*words, "--json").out)["engines"]
        shown = {"model": "toy", "status": "stopped", "reason": BYTES_DIFFER, "level": "", "isolation": "", "pid": 0}
        assert engine == shown
        assert "engine     toy  stopped: its bytes are not the signed ones" in command(*words).out.splitlines()
