"""T36: two installs at once, or one that begins while a child of a killed one still works."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.host.install.install import install
from appliance.host.layout.install_lock import hold
from appliance.host.layout.prefix import Prefix
from appliance.host.preflight.host_check import PreflightResult
from appliance.host.preflight.inputs import Host
from appliance.host.process.programs import Programs
from appliance.host.trust.root_pin import pin_root
from tests.appliance.sim_card import CARD
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.sim.clock import SimClock
from tests.toy import NOW

ROW = row(36)


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    prefix = Prefix.at(tmp_path / "host")
    prefix.create()
    return prefix


def take(prefix: Prefix) -> None:
    with hold(prefix, wait_s=0.1):
        pass


def test_unattacked_one_after_the_other_works(prefix: Prefix) -> None:
    take(prefix)
    take(prefix)


def test_attacked_by_a_second_install(prefix: Prefix) -> None:
    with hold(prefix):
        error = refused(ROW, lambda: take(prefix), "install.busy", str(prefix.journal / "lock"))
    assert error.found == f"process {os.getpid()} at work"
    take(prefix)


def test_attacked_by_a_second_install_nothing_is_written(
    prefix: Prefix, stick: Stick, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.host.install.install.hold", lambda prefix: hold(prefix, 0.1))
    monkeypatch.setattr("appliance.host.install.install.run_preflight", lambda *_: PreflightResult(None, ("x64",), ()))
    pin_root(prefix, stick.root_file, [one.public.fingerprint for one in stick.repository.people.root])
    before = sorted(prefix.root.rglob("*"))
    host = Host(prefix, CARD, SimClock(NOW), "")
    with hold(prefix):
        refused(ROW, lambda: install(stick.path, stick.root, host), "install.busy", str(prefix.journal / "lock"))
    assert sorted(path for path in prefix.root.rglob("*") if path.name != "lock") == before


def test_attacked_by_the_orphan_of_a_killed_install(prefix: Prefix) -> None:
    with hold(prefix) as descriptor:
        child = Programs(prefix.scratch, descriptor).start(["/bin/sleep", "60"], "orphan", cwd=prefix.scratch)
    try:
        refused(ROW, lambda: take(prefix), "install.busy", str(prefix.journal / "lock"))
    finally:
        child.kill()
    take(prefix)


def test_unguarded_both_are_at_work(prefix: Prefix) -> None:
    with hold(prefix), guard_off(ROW.guard, lambda *_: True):
        take(prefix)
