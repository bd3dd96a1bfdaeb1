"""`appliance plan` of a bundle on a host: everything an install would change, and nothing changed by asking."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from appliance import clock
from appliance.builder.chunking.chunker import Source
from appliance.cli.planner import host_check as check_program
from appliance.host.change.journal import DONE, FAILED, STARTED, JournalEntry
from appliance.host.install.planning.plan_times import BY_RATE, RECORDED, forecast, recorded, total_seconds
from appliance.host.install.steps import WHOLE_INSTALL
from appliance.host.machine.card import card_value
from appliance.host.playbook import prediction
from appliance.host.playbook.prediction import PredictedChange, Prediction
from appliance.host.preflight.surroundings import Listener, Process, Surroundings
from bundles.gguf.memory import RESERVE_BYTES
from tests.appliance.sim_card import CARD
from tests.appliance.sim_host import SimHost, build_bundle, new_host
from tests.attacks.harness import Answer, command

ROLES = Path(__file__).parents[4] / "playbooks/roles"


@pytest.fixture(autouse=True)
def _formula_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is built here, and the folder for temporary files is too small for the bundle's own runtime."""
    monkeypatch.setenv("AIRGAP_APPLIANCE_CACHE", str(tmp_path / "no-cache"))
    monkeypatch.setattr("appliance.cli.planner.plan_source.UNPACKED_COPIES", 1 << 60)


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    """A host on which 1.0.0 serves."""
    made = new_host(tmp_path_factory.mktemp("planned"))
    made.install()
    return made


@pytest.fixture(scope="module")
def newer(sim: SimHost) -> Path:
    """The next bundle, with the declarations of the real roles."""
    paths = sorted(ROLES.glob("*/meta/effects.yml"))
    extra = [
        Source(f"playbooks/{path.relative_to(ROLES.parent)}", "playbook", data=path.read_bytes()) for path in paths
    ]
    return build_bundle(sim.workspace, "1.1.0", "two", extra)


def plan(sim: SimHost, source: Path, *words: object, prefix: Path | None = None) -> Answer:
    where = ("--prefix", prefix or sim.prefix.root, "--workspace", sim.workspace.path)
    return command("plan", source, *where, *map(str, words))


def install_part(answer: Answer) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(answer.out)["install"]
    return value


def tree(root: Path, *, with_atime: bool) -> dict[str, tuple[object, ...]]:
    """Everything below a folder that a change would show in."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        data = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
        times = (status.st_mtime_ns, status.st_ctime_ns, *([status.st_atime_ns] if with_atime else []))
        found[str(path)] = (status.st_mode, status.st_uid, status.st_ino, times, data)
    return found


def test_plan_changes_nothing_on_the_host_nor_on_the_stick(sim: SimHost, newer: Path, tmp_path: Path) -> None:
    for root in (sim.prefix.root, newer):
        tree(root, with_atime=False)  # a first read moves the times of access, as the kernel decides
    state, rest, stick = (
        tree(sim.prefix.state, with_atime=True),
        tree(sim.prefix.root, with_atime=False),
        tree(newer, with_atime=False),
    )
    assert plan(sim, newer).code == 0
    assert command("host", "check", newer, "--prefix", sim.prefix.root).code == 0
    assert plan(sim, newer, prefix=tmp_path / "fresh").code == 0
    assert tree(sim.prefix.state, with_atime=True) == state
    assert tree(sim.prefix.root, with_atime=False) == rest
    assert tree(newer, with_atime=False) == stick
    assert not (tmp_path / "fresh").exists()


def test_plan_of_an_upgrade_names_releases_copies_files_and_the_way_of_the_switch(sim: SimHost, newer: Path) -> None:
    found = install_part(plan(sim, newer, "--json"))
    assert (found["version"], found["serves"]) == ("1.1.0", sim.prefix.current.resolve().name)
    assert found["release"].startswith("1.1.0-")
    # The model lies in the store that releases share.
    assert 0 < found["copies"]["files"] < 8 + 4
    assert all(room["is_enough"] and room["needed_bytes"] > 0 for room in found["space"])
    names = {(one["kind"], one["name"].removeprefix(str(sim.prefix.root))) for one in found["effects"]}
    assert ("file", f"/opt/appliance/releases/{found['release']}/config/gateway.json") in names
    assert ("file", "/etc/appliance/site.yaml") in names
    assert found["switch"]["way"] == "beside"
    assert found["switch"]["memory_during"] == found["switch"]["memory_now"] + found["switch"]["memory_after"]
    assert found["switch"]["downtime_seconds"] == 0
    assert found["variant"] == {"name": "haswell", "how": "chosen here"}
    assert found["problems"] == []
    assert any("floors" in line for line in found["final"])


def test_plan_of_the_serving_release_repairs_it_and_switches_nothing(sim: SimHost) -> None:
    shown = plan(sim, sim.source).out
    assert "copies       nothing" in shown
    assert "none: this release serves already" in shown
    assert "nothing serves yet" not in shown


def test_plan_as_text_has_the_same_in_short_lines(sim: SimHost, newer: Path) -> None:
    shown = plan(sim, newer).out
    for words in ("copies", "space", "files", "port         127.0.0.1:8443", "users wait for nothing", "for good"):
        assert words in shown
    # Only a path may be longer than the terminal.
    assert [line for line in shown.splitlines() if len(line) > 80 and "/" not in line] == []


def test_machine_without_room_for_both_plans_a_window_with_its_downtime(
    sim: SimHost, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = install_part(plan(sim, newer, "--json"))["switch"]["memory_after"]
    real = check_program.this_host

    def small(*words: Any, **named: Any) -> object:
        host = real(*words, **named)
        memory = replace(host.card.memory, ram_bytes=RESERVE_BYTES + 2 * need - 1, limit_bytes=None)
        return replace(host, card=replace(host.card, memory=memory))

    monkeypatch.setattr("appliance.cli.planner.plan_install.this_host", small)
    answer = plan(sim, newer, "--json")
    found = install_part(answer)["switch"]
    assert (answer.code, found["way"], found["memory_during"]) == (0, "window", need)
    assert found["downtime_seconds"] > 0
    assert "503 with Retry-After" in plan(sim, newer).out


def test_plan_for_another_machine_lists_what_the_roles_declare_for_a_whole_machine(
    sim: SimHost, newer: Path, tmp_path: Path
) -> None:
    (tmp_path / "card.json").write_text(json.dumps(card_value(CARD)))
    answer = plan(sim, newer, "--host", tmp_path / "card.json", "--json", prefix=Path("/"))
    found = install_part(answer)
    assert (answer.code, found["serves"], found["prefix"]) == (0, None, "/")
    by_kind = {kind: [one["name"] for one in found["effects"] if one["kind"] == kind] for kind in ("user", "unit")}
    assert by_kind["user"] == ["appliance-engine", "appliance-gateway"]
    assert "appliance-gateway.service" in by_kind["unit"]
    assert found["space"] == [{**found["space"][0], "folder": "/", "free_bytes": 50 << 30}]
    assert {one["how"] for one in found["times"]} == {BY_RATE}


def test_card_of_this_machine_plans_a_fresh_host(sim: SimHost, newer: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.json"
    card.write_text(command("host", "probe", "--json", "--prefix", tmp_path / "nothing").out)
    found = install_part(plan(sim, newer, "--host", card, "--json"))
    assert (found["serves"], found["switch"]["way"], found["prefix"]) == (None, "first", str(sim.prefix.root))


def test_plan_for_a_machine_that_cannot_take_it_names_every_problem_and_exits_6(
    sim: SimHost, newer: Path, tmp_path: Path
) -> None:
    card = replace(
        CARD, system=replace(CARD.system, arch="mips", glibc="2.3"), disks=(replace(CARD.disks[0], free_bytes=1),)
    )
    (tmp_path / "card.json").write_text(json.dumps(card_value(card)))
    answer = plan(sim, newer, "--host", tmp_path / "card.json", "--json", prefix=Path("/"))
    assert answer.code == 6
    assert [line.split(":")[0] for line in install_part(answer)["problems"]] == ["system", "glibc", "disk at /"]


def test_decision_about_a_model_that_the_bundle_lacks_prevents_the_plan_as_it_prevents_the_install(
    sim: SimHost, newer: Path, tmp_path: Path
) -> None:
    site_file = tmp_path / "fresh/etc/appliance/site.yaml"
    site_file.parent.mkdir(parents=True)
    site_file.write_text("models: {gone: {pin: true}}\n")
    answer = plan(sim, newer, "--json", prefix=tmp_path / "fresh")
    assert answer.code == 2
    assert "field models.gone" in answer.out


def test_older_bundle_is_planned_only_where_that_is_meant(sim: SimHost) -> None:
    older = build_bundle(sim.workspace, "0.9.0", "three")
    answer = plan(sim, older, "--json")
    assert (answer.code, len(install_part(answer)["problems"])) == (6, 1)
    answer = plan(sim, older, "--older", "--json")
    assert (answer.code, install_part(answer)["problems"]) == (0, [])


def test_check_passes_without_a_route_names_or_time(sim: SimHost, newer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError(101, "Network is unreachable")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, no_network, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(clock, "utc_now", lambda: datetime(2018, 1, 1, tzinfo=timezone.utc))
    answer = command("host", "check", newer, "--prefix", sim.prefix.root, "--json")
    assert answer.code == 0
    findings = {one["subject"]: one for one in json.loads(answer.out)["findings"]}
    assert findings["clock"]["level"] == "warning"
    assert findings["clock"]["remedy"] == "set the clock; it prevents nothing"


def test_check_shows_all_points_at_once_with_required_measured_and_remedy(
    sim: SimHost, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    around = Surroundings("box", (Listener("127.0.0.1", 8443, Process(5, "nginx")),))
    monkeypatch.setattr(check_program, "read_surroundings", lambda: around)
    monkeypatch.setattr("appliance.host.preflight.room_findings.TEMPORARY_BYTES", 1 << 60)
    monkeypatch.setattr("appliance.host.preflight.host_check.find_python", lambda *_: None)
    answer = command("host", "check", newer, "--prefix", sim.prefix.root, "--json")
    value = json.loads(answer.out)
    assert (answer.code, value["fits"]) == (6, False)
    wrong = [one for one in value["findings"] if one["level"] == "problem"]
    assert [one["subject"].split()[0] for one in wrong] == ["python", "temporary"]
    assert all(one["required"] and one["measured"] and one["remedy"] for one in wrong)
    shown = command("host", "check", newer, "--prefix", sim.prefix.root)
    assert "NO    python: none, required: Python" in shown.out
    assert "      remedy: apt install python3 python3-venv" in shown.out
    assert "note  port 8443: taken by process 5 (nginx)" in shown.out


def entry(step: str, state: str, second: int, release: str = "r") -> JournalEntry:
    return JournalEntry(f"2026-01-01T00:00:{second:02d}Z", release, step, state)


def test_times_are_those_that_this_host_recorded_and_rates_elsewhere() -> None:
    entries = [
        entry("render", STARTED, 0),
        entry("render", DONE, 9),
        entry("runtime", STARTED, 10),
        entry("runtime", FAILED, 20),
        entry("gate", STARTED, 30),  # cut off
        entry("candidate", STARTED, 40),
        entry("candidate", DONE, 20),  # somebody has set the clock back
        entry("render", STARTED, 50),
        entry("render", DONE, 54),
    ]
    assert recorded(entries) == {"render": 4}
    times = {one.step: (one.seconds, one.how) for one in forecast(entries, 300_000_000, 10**9, is_complete=False)}
    assert times["render"] == (4, RECORDED)
    assert times["import"] == (2, BY_RATE)
    assert times["candidate"] == (4, BY_RATE)
    known = {step.name for step in WHOLE_INSTALL}
    assert times.keys() <= known


def test_complete_release_makes_no_environment_again() -> None:
    fresh, again = (forecast((), 0, 0, is_complete=value) for value in (False, True))
    assert {one.step for one in fresh} - {one.step for one in again} == {"bootstrap", "environment", "runtime"}
    assert total_seconds(again) < total_seconds(fresh)


def test_small_folder_for_temporary_files_leaves_the_plan_to_the_formula(sim: SimHost, newer: Path) -> None:
    answer = plan(sim, newer, "--json")
    assert answer.code == 0
    assert "has too little room to unpack it): computed by the formula alone" in answer.talk


def test_plan_of_an_upgrade_has_what_the_installed_ansible_predicts(
    sim: SimHost, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, Path, str]] = []

    def check(python: Path, playbooks: Path, given: dict[str, Any], folder: Path) -> Prediction:
        asked.append((python, playbooks, given["appliance_release"]))
        assert (playbooks / "roles" / "engine" / "meta" / "effects.yml").is_file()
        change = PredictedChange("gateway", "file", "/x/gateway.json", False, "old\n", "new\n")
        return Prediction((change, replace(change, name="/x/new", is_new=True)))

    monkeypatch.setattr(prediction, "run_check", check)
    found = install_part(plan(sim, newer, "--json"))
    assert found["ansible"]["problem"] == ""
    assert [(one["role"], one["name"], one["after"]) for one in found["ansible"]["changes"]] == [
        ("gateway", "/x/gateway.json", "new\n"),
        ("gateway", "/x/new", "new\n"),
    ]
    ((python, playbooks, release),) = asked
    assert python == sim.prefix.current.resolve() / "venv" / "bin" / "python"
    assert Path(release).name == found["release"]
    assert not playbooks.exists()
    shown = plan(sim, newer).out
    assert "Ansible      changes file /x/gateway.json" in shown
    assert "makes file /x/new" in shown


def test_plan_names_the_problem_of_a_release_without_ansible_and_goes_on(sim: SimHost, newer: Path) -> None:
    found = install_part(plan(sim, newer, "--json"))
    # The environment of this release holds no Ansible.
    assert found["ansible"]["changes"] == []
    assert "check_runner" in found["ansible"]["problem"]
    assert "no prediction: " in plan(sim, newer).out


def test_plan_never_runs_an_environment_that_was_changed(sim: SimHost, newer: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(sim.prefix.root, tmp_path / "host", symlinks=True)
    python = (copy / "opt/appliance/current/venv/bin/python").absolute()
    python.unlink()
    python.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
    python.chmod(0o755)
    found = install_part(plan(sim, newer, "--json", prefix=copy))
    assert not (tmp_path / "ran").exists()
    assert found["ansible"]["changes"] == []
    assert "not as it was installed" in found["ansible"]["problem"]


def test_plan_of_a_fresh_host_has_the_declared_effects_alone(sim: SimHost, newer: Path, tmp_path: Path) -> None:
    found = install_part(plan(sim, newer, "--json", prefix=tmp_path / "fresh"))
    assert found["ansible"] is None
    assert found["effects"]


def test_control_group_that_serving_engines_fill_does_not_prevent_the_upgrade(
    sim: SimHost, newer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = replace(CARD, memory=replace(CARD.memory, limit_bytes=1))
    monkeypatch.setattr("appliance.cli.planner.plan.read_card", lambda: full)
    assert json.loads(plan(sim, newer, "--json").out)["fits"] is True
    assert json.loads(plan(sim, newer, "--json", prefix=tmp_path / "fresh").out)["fits"] is False
