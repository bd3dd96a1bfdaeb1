"""T125: what a person agreed to in a plan is not what the install would do any more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from appliance.host.install.install import install
from appliance.host.install.planning.install_plan import InstallPlan, Silent
from appliance.host.preflight.inputs import Host
from tests.appliance.sim_card import CARD
from tests.appliance.sim_host import SimHost, build_bundle, new_host
from tests.attacks.harness import command, guard_off, refused, row
from tests.toy import NOW

ROW = row(125)


class Reached(Exception):
    """The install would begin to write."""


class Stop(Silent):
    """Ends an install where it would begin to write."""

    def on_planned(self, plan: InstallPlan) -> None:
        raise Reached


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    return new_host(tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def planned(sim: SimHost) -> dict[str, Any]:
    """What `appliance plan --json` answers for the simulated machine."""
    answer = command("plan", sim.source, "--workspace", sim.workspace.path, "--prefix", sim.prefix.root, "--json")
    assert answer.code == 0, answer.talk
    value: dict[str, Any] = json.loads(answer.out)
    value["install"]["system"] = CARD.system.os  # of the machine that the tests install on
    return value


def try_install(sim: SimHost, plan: dict[str, Any], source: Path | None = None) -> None:
    host = Host(sim.prefix, CARD, lambda: NOW, "", is_root_compared=True, plan=json.dumps(plan).encode())
    install(source or sim.source, sim.trust, host, dialogue=Stop())


def changed(planned: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**planned, "install": {**planned["install"], **fields}}


def test_unattacked_the_install_is_as_planned(sim: SimHost, planned: dict[str, Any]) -> None:
    with pytest.raises(Reached):
        try_install(sim, planned)
    assert not sim.prefix.root.exists()


def test_attacked_by_another_bundle_of_the_same_people(sim: SimHost, planned: dict[str, Any]) -> None:
    other = build_bundle(sim.workspace, "1.1.0", "two")
    error = refused(ROW, lambda: try_install(sim, planned, other), "plan.changed", "plan, version")
    assert (error.expected, error.found) == ("1.0.0", "1.1.0")
    assert {one.subject for one in error.others} == {"plan, manifest", "plan, release"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("serves", "0.9.0-0123456789ab"),
        ("port", "127.0.0.1:9000"),
        ("system", "debian-13"),
        ("prefix", "/srv/other"),
    ],
)
def test_attacked_by_a_host_that_differs_since(sim: SimHost, planned: dict[str, Any], field: str, value: str) -> None:
    error = refused(ROW, lambda: try_install(sim, changed(planned, **{field: value})), "plan.changed", f"plan, {field}")
    assert error.expected == value
    assert error.others == ()


def test_unattacked_plan_names_the_decisions_as_the_site_file_does(planned: dict[str, Any]) -> None:
    site = planned["install"]["site"]
    assert {"trial.good_after", "trial.ready_within", "port", "slots"} <= set(site)
    assert (site["slots"], site["trial.good_after"]) == ("", "600")


def test_attacked_by_a_site_file_that_was_edited_after_the_plan(sim: SimHost, planned: dict[str, Any]) -> None:
    sim.prefix.site_file.parent.mkdir(parents=True)
    sim.prefix.site_file.write_text("port: 9000\n")
    try:
        error = refused(ROW, lambda: try_install(sim, planned), "plan.changed", "plan, port")
        assert [one.subject for one in error.others] == ["plan, site port"]
        sim.prefix.site_file.write_text("# the same decisions\nport: 8443\n")
        with pytest.raises(Reached):
            try_install(sim, planned)
    finally:
        sim.prefix.site_file.unlink()


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"install": 7}', b'{"install": {"format": 2}}'])
def test_attacked_by_a_file_that_is_no_plan(sim: SimHost, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(data)
    words = ("--workspace", sim.workspace.path, "--prefix", sim.prefix.root, "--plan", path)
    answer = command("install", sim.source, *words)
    assert (answer.code, "plan.refused" in answer.talk) == (2, True)


def test_unguarded_another_install_than_the_planned_one_begins(sim: SimHost, planned: dict[str, Any]) -> None:
    with guard_off(ROW.guard, lambda *_: None), pytest.raises(Reached):
        try_install(sim, changed(planned, serves="0.9.0-0123456789ab"))
