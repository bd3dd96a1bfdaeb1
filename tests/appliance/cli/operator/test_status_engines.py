"""`status` shows what each engine does, and why one was stopped."""

from __future__ import annotations

import json
from pathlib import Path

from appliance.host.engine.crashes import CRASHED
from appliance.host.engine.process import socket_path
from appliance.host.engine.state import BYTES_DIFFER, RESTARTING, STOPPED, EngineState, write_state
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


def test_model_that_was_stopped_by_crashes_is_a_difference_with_a_way_back(tmp_path: Path) -> None:
    host = new_host(tmp_path)
    host.install()
    words = ("status", "--prefix", host.prefix.root)
    with run_dir.hold(host.prefix), run_dir.sockets(host.prefix) as folder:
        write_state(socket_path(folder, "toy"), EngineState(RESTARTING, "its engine ended: exit status 139 (SIGSEGV)"))
        assert command(*words).code == 0
        write_state(socket_path(folder, "toy"), EngineState(STOPPED, CRASHED))
        shown = command(*words)
        assert shown.code == 9
        assert f"engine     toy  stopped: {CRASHED}" in shown.out.splitlines()
        [step] = [line for line in shown.out.splitlines() if line.startswith("next ")]
        assert step.endswith("engine-toy.log); end `appliance serve` and start it again")
        [error] = json.loads(command(*words, "--json").out)["errors"]
        assert (error["code"], error["subject"], error["found"]) == ("engine.stopped", "toy", CRASHED)
