"""A restore that is cut off is finished, and one that fails brings back what was there."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.host.change.change_file import INSTALL, TRYING, UNINSTALL, HostChange, read_change, write_change
from appliance.host.change.step_runner import AFTER, BEFORE
from appliance.host.maintenance import restore as restore_module
from appliance.host.maintenance.backup import write_backup
from appliance.host.maintenance.restore import STEPS, restore
from appliance.host.maintenance.restore_stage import discard, restore_folder, stage, staged_again
from appliance.host.site.api_keys import AccessStore
from signing.errors import (
    ApplyRestoredError,
    BusyError,
    DamagedError,
    UsageError,
)
from tests.appliance.host.lived_in_host import keys_of, lose, now, put_back, state_of
from tests.appliance.sim_host import SimHost
from tests.toy import NOW


def test_unfinished_change_is_finished_first(host: SimHost, stick: Path) -> None:
    backup = write_backup(host.prefix, stick, NOW)
    name = Path(os.readlink(host.prefix.current)).name
    for change in (
        HostChange(INSTALL, name, "", TRYING, "2026-01-02T03:04:05Z"),
        HostChange(UNINSTALL, "", "", "removing", "2026-01-02T03:04:05Z"),
    ):
        write_change(host.prefix, change)
        with pytest.raises(BusyError):
            put_back(host, backup)
        assert read_change(host.prefix) == change


@pytest.mark.parametrize("when", [BEFORE, AFTER])
@pytest.mark.parametrize("step", [step.name for step in STEPS])
def test_kill_at_every_boundary_is_finished_at_the_next_boot(host: SimHost, stick: Path, step: str, when: str) -> None:
    backup = write_backup(host.prefix, stick, NOW)
    lose(host)
    staged = stage(host.prefix, backup.path, [], NOW)
    child = os.fork()
    if child == 0:

        def kill(name: str, moment: str) -> None:
            if (name, moment) == (step, when):
                os._exit(99)

        restore(staged, now, kill)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 99
    change = read_change(host.prefix)
    if change is not None:
        restore(staged_again(host.prefix, NOW), now)
    is_begun = (step, when) != (STEPS[0].name, BEFORE)
    assert read_change(host.prefix) is None
    assert keys_of(host) == ({"ada": False, "default": False, "eve": False} if is_begun else {})
    assert host.prefix.site_file.exists() == is_begun
    if not is_begun:
        discard(host.prefix)
    assert not restore_folder(host.prefix).exists()


@pytest.mark.parametrize("at", range(1, len(STEPS) - 1))
def test_step_that_fails_brings_back_what_was_there(
    host: SimHost, stick: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    backup = write_backup(host.prefix, stick, NOW)
    lose(host)
    (host.prefix.trust / "receipts.json").unlink()
    host.prefix.site_file.write_text("port: 1\n")
    before = state_of(host)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    steps = [replace(step, run=fail) if number == at else step for number, step in enumerate(STEPS)]
    monkeypatch.setattr(restore_module, "STEPS", tuple(steps))
    with pytest.raises(ApplyRestoredError) as caught:
        put_back(host, backup)
    assert caught.value.code == "disk.full"
    after = state_of(host)
    if at > 2:
        assert after.pop("var/lib/appliance/trust/receipts.json")
    assert after == before
    assert read_change(host.prefix) is None


def test_gate_that_fails_brings_back_what_was_there(
    host: SimHost, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = write_backup(host.prefix, stick, NOW)
    lose(host)
    before = state_of(host)

    def closed(*_: object) -> None:
        raise DamagedError("release.gone", "release", expected="a release", found="none")

    monkeypatch.setattr(restore_module, "open_current", closed)
    with pytest.raises(ApplyRestoredError) as caught:
        put_back(host, backup)
    assert caught.value.code == "restore.gate"
    assert state_of(host) == before


def test_key_that_is_revoked_or_replaced_meanwhile_stays_so_when_the_restore_fails(
    host: SimHost, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = write_backup(host.prefix, stick, NOW)
    store = AccessStore(host.prefix.access)
    before = {key.id for key in store.list() if key.is_revoked}
    meanwhile = {key.id for key in map(store.find, ("ada", "eve")) if key is not None}

    def closed(*_: object) -> None:
        store.revoke("ada", NOW)
        store.rotate("eve", NOW)
        raise DamagedError("release.chain", "bundle", expected="a release", found="none")

    monkeypatch.setattr(restore_module, "open_current", closed)
    with pytest.raises(ApplyRestoredError):
        put_back(host, backup)
    assert {key.id for key in store.list() if key.is_revoked} == before | meanwhile
    assert len(meanwhile) == 2


def test_only_a_restore_that_was_cut_off_can_be_resumed(host: SimHost) -> None:
    with pytest.raises(UsageError):
        staged_again(host.prefix, NOW)
