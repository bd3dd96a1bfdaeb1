"""Where the memory holds one release only, the engines that serve end before those of the next one start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from appliance.host.install import install_run
from appliance.host.install.switching import switch_release
from appliance.host.machine.card import Card
from appliance.host.models.fit import ModelWorkload
from appliance.host.models.switch_memory import BESIDE, FIRST, WINDOW, SwitchMemory, judge_switch
from signing.errors import ApplianceError, ApplyRestoredError
from tests.appliance.sim_host import build_bundle
from tests.appliance.sim_site import Site, new_site


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], list[str]]]:
    """Every judgement, as the names of the models now and of the new ones; it is a window unless nothing serves."""
    found: list[tuple[list[str], list[str]]] = []

    def judge(now: Sequence[ModelWorkload], new: Sequence[ModelWorkload], _card: Card) -> SwitchMemory:
        found.append(([one.name for one in now], [one.name for one in new]))
        return SwitchMemory(WINDOW if now else FIRST, 1, 1, 1, 1)

    monkeypatch.setattr(install_run, "judge_switch", judge)
    return found


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return new_site(tmp_path, monkeypatch)


def test_room_is_made_before_the_candidate_starts(site: Site, judged: list[tuple[list[str], list[str]]]) -> None:
    site.install()
    assert "make_room" not in site.services.names()
    site.install(build_bundle(site.sim.workspace, "1.1.0", "two"))
    assert site.services.names()[:2] == ["make_room", "try_candidate"]
    # One judgement for each install: after the rename of `current` it would be another one.
    assert judged == [([], ["toy"]), (["toy"], ["toy"])]


@pytest.mark.ci
def test_switch_to_a_staged_release_makes_room_before_the_rename(
    site: Site, judged: list[tuple[list[str], list[str]]]
) -> None:
    site.install()
    newer = build_bundle(site.sim.workspace, "1.1.0", "two")
    site.install(newer, is_staging=True)
    assert site.services.names() == ["make_room", "try_candidate", "end_candidate"]
    site.services.calls.clear()
    switch_release(None, site.machine)
    name, current = site.services.calls[0]
    assert name == "make_room"
    assert current is not None
    assert current.startswith("releases/1.0.0-")
    assert judged[-1] == (["toy"], ["toy"])


@pytest.mark.ci
def test_failure_in_the_window_restores_what_served(site: Site, judged: list[tuple[list[str], list[str]]]) -> None:
    site.install()
    before = site.release

    def refuse() -> None:
        raise ApplianceError("engine.failed", "toy", expected="an answer", found="none")

    site.services.staged["try_candidate"] = refuse
    with pytest.raises((ApplyRestoredError, ApplianceError)):
        site.install(build_bundle(site.sim.workspace, "1.1.0", "two"))
    assert site.services.names() == ["make_room", "try_candidate", "restore"]
    assert site.release == before
    assert judged


@pytest.mark.ci
def test_releases_that_fit_beside_each_other_need_no_window(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ways: list[str] = []

    def judge(now: Sequence[ModelWorkload], new: Sequence[ModelWorkload], card: Card) -> SwitchMemory:
        found = judge_switch(now, new, card)
        ways.append(found.way)
        return found

    monkeypatch.setattr(install_run, "judge_switch", judge)
    site.install()
    site.install(build_bundle(site.sim.workspace, "1.1.0", "two"))
    assert ways == [FIRST, BESIDE]
    assert "make_room" not in site.services.names()
