"""What a program of version 0.1.0 exchanges with a release of this version, and this program with a release of that.

The program that installs or serves starts modules in the environment of the release, which may be of another version.
Names are in `appliance.entry_points`. Here are the arguments, the messages and the files, as version 0.1.0 has them.
What only ever passes inside one version is not held here.
"""

from __future__ import annotations

import array
import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from appliance.host.activation.systemd_services import SystemdServices
from appliance.host.change.journal import Journal
from appliance.host.engine.state import RESTARTING, SERVING, STOPPED
from appliance.host.layout.prefix import Prefix
from appliance.host.playbook.ansible_run import _follow, variables
from appliance.host.release.release_json import read_facts, write_facts
from appliance.host.runtime import logits
from appliance.host.runtime.variant_choice import read_choice
from appliance.host.site.config import SiteConfig
from appliance.host.site.limits import Limits
from appliance.resources import playbooks_path
from appliance.serve.gateway import messages
from signing.digest import sha256
from tests.appliance.sim_host import new_host
from tests.toy import NOW

VARIABLES = {
    "appliance_root",
    "appliance_is_system",
    "appliance_users",
    "appliance_group",
    "appliance_release_id",
    "appliance_release",
    "appliance_bind",
    "appliance_port",
    "appliance_models",
    "appliance_identity",
}
SINCE = {
    "appliance_egress",
    "appliance_choices",
    "appliance_limits",
    "appliance_tls",
    "appliance_cors",
    "appliance_reach",
}
"""Variables of later versions."""
RECAP = {"ok": 6, "changed": 1, "failures": 0, "dark": 0}
END = {"ok": True, "status": "successful, exit code 0", "counts": RECAP, "failures": [], "said": ""}
FACTS = {
    "config": {"config/gateway.json": "a" * 64},
    "cpu_variant": "haswell",
    "isolation": "netns",
    "manifest": "b" * 64,
    "name": "toy",
    "python": "/usr/bin/python3.11",
    "python_version": "3.11.2",
    "site": "c" * 64,
    "tokens_per_s": 91,
    "version": "1.0.0",
}
MODEL = {
    "name": "toy",
    "socket": "/nonexistent/toy.sock",
    "slots": 2,
    "context": 64,
    "sha256": "d" * 64,
    "template": "",
    "embedding": 0,
}
MANIFEST, POLICY = "b" * 64, "a" * 64
PLAN = {
    "release": "toy 1.0.0",
    "manifest": MANIFEST,
    "policy": POLICY,
    "engine": "e" * 64,
    "access": "/nonexistent/access.db",
    "models": [MODEL],
}
NEWS = {"model": "toy", "state": "stopped", "level": "", "isolation": "", "reason": "its bytes are not the signed ones"}


def lines(*values: object) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def event_type() -> Any:
    """The class of a message about an engine, by its one method that reads a line."""
    return next(kind for kind in vars(messages).values() if hasattr(kind, "from_line"))


def test_playbook_gets_the_variables_of_before_and_uses_no_others(tmp_path: Path) -> None:
    host = new_host(tmp_path)
    bundle = host.verify().value
    given = variables(host.prefix, tmp_path / "release", bundle, SiteConfig())
    assert set(given) == VARIABLES | SINCE
    assert set(given["appliance_models"][0]) == {"name", "model", "store", "context", "slots"}
    assert set(given["appliance_identity"]) == {"name", "version", "manifest"}
    # A program of before passes no variable of later versions, so the play has a value for each of these.
    used = set(re.findall(r"appliance_\w+\b(?! \| default)", (playbooks_path() / "site.yml").read_text()))
    assert used <= VARIABLES


def test_child_of_before_that_runs_ansible_is_understood() -> None:
    total = []
    said = lines({"total": 2}, {"task": "One"}, {"task": "Two"}, {"end": END}).splitlines(keepends=True)
    assert _follow(said, lambda progress: total.append(progress.total)) == END
    assert total[0] == 2


def test_child_that_runs_ansible_is_started_and_answers_as_before(tmp_path: Path) -> None:
    playbooks, run = tmp_path / "playbooks", tmp_path / "run"
    run.mkdir(mode=0o700)
    role = playbooks / "roles" / "one" / "tasks"
    role.mkdir(parents=True)
    (playbooks / "site.yml").write_text(
        "- {hosts: appliance, connection: local, gather_facts: false, roles: [{role: one}]}\n"
    )
    (role / "main.yml").write_text("- {name: One task, ansible.builtin.assert: {that: appliance_port == 1}}\n")
    for name in ("inventory.yml", "ansible.cfg"):
        (playbooks / name).write_bytes((playbooks_path() / name).read_bytes())
    order = {"playbooks": str(playbooks), "variables": {"appliance_port": 1}}
    (run / "order.json").write_text(json.dumps(order))
    command = [sys.executable, "-I", "-B", "-m", "appliance.host.runner", str(run)]
    done = subprocess.run(command, cwd=run, stdout=subprocess.PIPE, env={"LC_ALL": "C.UTF-8"}, check=False)
    total, task, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, total, task) == (0, {"total": 1}, {"task": "One task"})
    assert {**end["end"], "said": ""} == {**END, "counts": {**RECAP, "ok": 1, "changed": 0}}


def test_role_of_before_has_its_files_written(tmp_path: Path) -> None:
    path = tmp_path / "gateway.json"
    file = {"path": str(path), "mode": "0644", "content": "{}", "check": "json"}
    kept = {**file, "path": str(tmp_path / "site.yaml"), "content": "port: 1\n", "check": "site", "keep": True}
    shell = {**file, "path": str(tmp_path / "appliance"), "mode": "0755", "content": "exit 0\n", "check": "shell"}
    order = {"folders": [{"path": str(tmp_path / "audit"), "mode": "0700"}], "files": [file, kept, shell]}
    command = [sys.executable, "-I", "-B", "-m", "appliance.host.rendered"]
    done = subprocess.run(command, input=json.dumps(order).encode(), stdout=subprocess.PIPE, check=True)
    assert json.loads(done.stdout) == [
        str(tmp_path / name) for name in ("audit", "gateway.json", "site.yaml", "appliance")
    ]


def test_numbers_of_a_variant_are_asked_for_and_given_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[object] = []
    numbers, result = array.array("f", [1.0, 2.0, 3.0, 4.0]), tmp_path / "result"

    def evaluate(_binding: object, *arguments: object) -> array.array[float]:
        called.extend(arguments)
        return numbers

    monkeypatch.setattr(logits, "load_binding", lambda *arguments: called.extend(arguments))
    monkeypatch.setattr(logits, "evaluate", evaluate)
    assert logits.main(["/runtime", "haswell", "-", "/model.gguf", "4", str(result)]) == 0
    assert called == [Path("/runtime"), "haswell", None, Path("/model.gguf"), 4]
    assert result.read_bytes() == numbers.tobytes()


def test_plan_and_events_have_the_fields_of_before() -> None:
    plan = messages.Plan.from_bytes(json.dumps(PLAN).encode())
    assert json.loads(plan.to_bytes()) == PLAN
    event = event_type().from_line(json.dumps(NEWS).encode())
    assert json.loads(event.to_line()) == NEWS
    assert (SERVING, RESTARTING, STOPPED) == ("serving", "restarting", "stopped")


@contextmanager
def gateway(tmp_path: Path) -> Iterator[int]:
    """The gateway as version 0.1.0 starts it, with one event; gives its port."""
    plan, (reading, writing) = tmp_path / "plan", os.pipe()
    plan.write_text(json.dumps({**PLAN, "access": str(tmp_path / "access.db")}))
    with socket.create_server(("127.0.0.1", 0)) as listening, plan.open("rb") as stream:
        command = [sys.executable, "-I", "-B", "-m", "appliance.serve.gateway"]
        command += ["--plan", str(stream.fileno()), "--listen", str(listening.fileno()), "--news", str(reading)]
        fds = (stream.fileno(), listening.fileno(), reading)
        with subprocess.Popen(command, pass_fds=fds, env={"LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}) as process:
            os.write(writing, lines(NEWS))
            try:
                yield listening.getsockname()[1]
            finally:
                process.terminate()
                os.close(reading)
                os.close(writing)


def test_gateway_is_started_as_before_and_names_what_it_serves(tmp_path: Path) -> None:
    with gateway(tmp_path) as port:
        until = time.monotonic() + 30
        body: dict[str, Any] = {}
        while "stopped" not in str(body) and time.monotonic() < until:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/readyz")
                reply = connection.getresponse()
                body = json.loads(reply.read())
            connection.close()
        assert "stopped" in str(body)
        # By these an installer knows that the gateway serves the release that it has switched to.
        assert (reply.headers["appliance-release"], reply.headers["appliance-policy"]) == (MANIFEST, POLICY)


class _OldGateway(BaseHTTPRequestHandler):
    """Answers as the gateway of version 0.1.0 does to `/readyz`."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("appliance-release", MANIFEST)
        self.send_header("appliance-policy", POLICY)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def test_installer_knows_a_gateway_of_before_by_its_headers(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), _OldGateway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = {"bind": "127.0.0.1", "port": server.server_address[1], "models": ["toy"], "release": {}}
        (tmp_path / "gateway.json").write_text(json.dumps(config))
        bundle = SimpleNamespace(value=SimpleNamespace(manifest=MANIFEST))
        facts = SimpleNamespace(config={"config/gateway.json": POLICY})
        release: Any = SimpleNamespace(config=tmp_path, bundle=bundle, facts=facts)
        services: Any = SystemdServices(Prefix(Path("/")), lambda: NOW)
        assert services._is_served(release)
        facts.config["config/gateway.json"] = "f" * 64
        assert not services._is_served(release)
        server.shutdown()


def test_facts_of_a_release_have_the_fields_of_before(tmp_path: Path) -> None:
    data = json.dumps(FACTS, separators=(",", ":"), sort_keys=True).encode()
    (tmp_path / "RELEASE.json").write_bytes(data)
    assert write_facts(read_facts(tmp_path)) == data


def test_journal_and_measurements_of_before_are_read(tmp_path: Path) -> None:
    entry = {"time": "2026-01-01T00:00:00Z", "release": "1.0.0-b", "step": "render", "state": "started", "note": ""}
    (tmp_path / "install.jsonl").write_bytes(lines(entry))
    interrupted = Journal(tmp_path / "install.jsonl", lambda: NOW).interrupted("1.0.0-b")
    assert interrupted is not None
    assert interrupted.step == "render"
    choice = {
        "variant": "x64",
        "prompt_tokens_per_s": 9,
        "generated_tokens_per_s": 3,
        "divergence": 0.0,
        "passed_over": ["a: b"],
    }
    (tmp_path / "trials.json").write_text(json.dumps({sha256(b"key"): choice}))
    found = read_choice(tmp_path / "trials.json", "key")
    assert found is not None
    assert (found.variant, found.passed_over) == ("x64", ("a: b",))


def test_plan_has_a_field_of_a_later_version_only_where_it_differs_from_its_default() -> None:
    plan = messages.Plan.from_bytes(json.dumps(PLAN).encode())
    limited = replace(plan, limits=Limits(silence=30))
    assert json.loads(limited.to_bytes()) == {**PLAN, "limits": {"silence": 30}}
    assert messages.Plan.from_bytes(limited.to_bytes()) == limited
