"""T124: an old stick, which the newest metadata still allow, takes a host back without anybody having asked for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from appliance.host.install.install import install
from appliance.host.install.planning.install_plan import InstallPlan, Silent
from appliance.host.preflight.inputs import Host
from appliance.host.release.release import current_target
from signing.errors import HostUnfitError
from tests.appliance.sim_card import CARD
from tests.appliance.sim_host import SimHost, build_bundle, new_host
from tests.attacks.harness import command, guard_off, refused, row
from tests.toy import NOW

ROW = row(124)


class Reached(Exception):
    """The install would begin to write."""


class Stop(Silent):
    """Ends an install where it would begin to write."""

    def on_planned(self, plan: InstallPlan) -> None:
        raise Reached(plan.release.name)


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    """A host on which 1.0.0 serves."""
    made = new_host(tmp_path_factory.mktemp("older"))
    made.install()
    return made


@pytest.fixture(scope="module")
def older(sim: SimHost) -> Path:
    """A bundle that the same people have signed, and not revoked."""
    return build_bundle(sim.workspace, "0.9.0", "two")


def try_install(sim: SimHost, source: Path, *, is_meant: bool = False) -> None:
    host = Host(sim.prefix, CARD, lambda: NOW, "", may_go_back=is_meant)
    install(source, sim.trust, host, dialogue=Stop())


def test_unattacked_the_serving_release_a_newer_one_and_a_meant_older_one_pass(sim: SimHost, older: Path) -> None:
    newer = build_bundle(sim.workspace, "1.0.1", "three")
    for source, is_meant in ((sim.source, False), (newer, False), (older, True)):
        with pytest.raises(Reached):
            try_install(sim, source, is_meant=is_meant)


def test_attacked_with_an_older_bundle_that_is_still_allowed(sim: SimHost, older: Path) -> None:
    serves = current_target(sim.prefix)
    error = refused(ROW, lambda: try_install(sim, older), "install.older", "release")
    assert (error.expected, error.found) == ("toy 1.0.0 or newer, which serves here", "toy 0.9.0")
    assert "--older" in error.hint
    assert current_target(sim.prefix) == serves
    answer = command("host", "check", older, "--prefix", sim.prefix.root)
    assert (answer.code, "install.older" in answer.talk) == (6, True)


def test_attacked_with_damaged_records_of_the_serving_release(sim: SimHost, older: Path) -> None:
    facts = sim.prefix.current / "RELEASE.json"
    data = facts.read_bytes()
    facts.write_bytes(b"{}")
    try:
        refused(ROW, lambda: try_install(sim, older), "install.older", "release")
        with pytest.raises(Reached):
            try_install(sim, sim.source)  # its own stick repairs it
    finally:
        facts.write_bytes(data)


def test_unattacked_a_fresh_host_takes_any_version(sim: SimHost, older: Path) -> None:
    host = Host(
        replace(sim.prefix, root=sim.prefix.root.with_name("fresh")), CARD, lambda: NOW, "", is_root_compared=True
    )
    with pytest.raises(Reached):
        install(older, sim.trust, host, dialogue=Stop())


def test_unguarded_the_host_goes_back(sim: SimHost, older: Path) -> None:
    with guard_off(ROW.guard, lambda *_, **__: None), pytest.raises(Reached) as caught:
        try_install(sim, older)
    assert str(caught.value).startswith("0.9.0-")
    with pytest.raises(HostUnfitError):
        try_install(sim, older)
