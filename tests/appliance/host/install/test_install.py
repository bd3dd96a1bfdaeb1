"""A bundle that is not trusted and a host that is unfit leave no trace; an install that fails can be continued."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from appliance.host.install.install import install
from appliance.host.layout.install_lock import hold
from appliance.host.machine.card import Card
from appliance.host.preflight.inputs import Host
from appliance.host.process.programs import Programs
from appliance.keys.workspace import create_development
from signing.errors import ApplianceError, ApplyRestoredError, BusyError, HostUnfitError, NotTrustedError, UsageError
from tests.appliance.sim_card import CARD
from tests.appliance.sim_host import SimHost, new_host
from tests.toy import NOW


@pytest.fixture
def sim(tmp_path: Path) -> SimHost:
    return new_host(tmp_path)


def host_of(sim: SimHost, card: Card = CARD) -> Host:
    return Host(sim.prefix, card, lambda: datetime.now(timezone.utc), "")


def other_root(tmp_path: Path) -> bytes:
    return create_development(tmp_path / "other", NOW)[0].root_file.read_bytes()


def test_bundle_of_another_publisher_is_refused_with_exit_4_and_nothing_is_written(
    sim: SimHost, tmp_path: Path
) -> None:
    with pytest.raises(NotTrustedError) as caught:
        install(sim.source, other_root(tmp_path), host_of(sim))
    assert caught.value.exit_code == 4
    assert not sim.prefix.root.exists()


def test_unfit_host_is_refused_and_nothing_is_written(sim: SimHost) -> None:
    with pytest.raises(HostUnfitError):
        install(
            sim.source, sim.trust, host_of(sim, replace(CARD, system=replace(CARD.system, os="plan9-4", arch="mips")))
        )
    assert not sim.prefix.root.exists()


def test_folder_without_a_bundle_is_a_wrong_command(sim: SimHost, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        install(tmp_path, sim.trust, host_of(sim))


def test_root_given_by_hand_does_not_replace_the_pinned_one(sim: SimHost, tmp_path: Path) -> None:
    sim.prefix.create()
    pinned = sim.prefix.trust / "root.json"
    pinned.write_bytes(other_root(tmp_path))
    before = pinned.read_bytes()
    with pytest.raises(NotTrustedError):
        install(sim.source, sim.trust, host_of(sim))
    assert pinned.read_bytes() == before


def test_second_install_leaves_with_exit_75(sim: SimHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.host.install.install.hold", lambda prefix: hold(prefix, wait_s=0.1))
    sim.prefix.create()
    with hold(sim.prefix), pytest.raises(BusyError):
        install(sim.source, sim.trust, host_of(sim))


def test_failing_step_is_in_the_journal_leaves_no_current_and_is_resumed(sim: SimHost) -> None:
    # This bundle has no Ansible in it, so the install must stop at the step that needs it.
    with pytest.raises(ApplyRestoredError) as caught:
        install(sim.source, sim.trust, host_of(sim))
    assert caught.value.exit_code == 7
    assert not sim.prefix.current.is_symlink()
    journal = (sim.prefix.journal / "install.jsonl").read_text()
    assert '"step": "render", "state": "failed"' in journal
    models = {path: path.stat().st_ino for path in sim.prefix.models.rglob("*.gguf")}
    with pytest.raises(ApplyRestoredError):
        install(sim.source, sim.trust, host_of(sim))
    assert {path: path.stat().st_ino for path in sim.prefix.models.rglob("*.gguf")} == models
    assert list(sim.prefix.scratch.iterdir()) == []


def test_program_that_fails_because_the_disk_is_full_is_reported_as_that(sim: SimHost) -> None:
    sim.prefix.create()
    with hold(sim.prefix) as lock, pytest.raises(ApplianceError) as caught:
        command = ["/bin/sh", "-c", "echo 'write: No space left on device' >&2; exit 1"]
        Programs(sim.prefix.scratch, lock).run(command, "sh", cwd=sim.prefix.scratch, timeout_s=10)
    assert caught.value.code == "disk.full"
    assert caught.value.exit_code == 7


def test_children_get_nothing_of_the_caller_s_environment(sim: SimHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid")
    sim.prefix.create()
    with hold(sim.prefix) as lock:
        programs = Programs(sim.prefix.scratch, lock)
        done = programs.run(["/usr/bin/env"], "env", cwd=sim.prefix.scratch, timeout_s=10)
    assert done.code == 0
    assert "hunter2" not in done.output
    assert "PROXY" not in done.output
