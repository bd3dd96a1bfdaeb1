"""T120: the record of the unfinished change is edited, to have a host serve a folder from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.host.change.change_file import INSTALL, SWITCHING, HostChange, change_path, format_change
from appliance.host.change.recovery import undo_switch
from appliance.host.layout.prefix import Prefix
from appliance.host.release.release import current_target
from tests.attacks.harness import guard_off, refused, row

ROW = row(120)
NEW, OLD = "1.1.0-0123456789ab", "1.0.0-ba9876543210"
RECORD = format_change(HostChange(INSTALL, NEW, OLD, SWITCHING, "2026-01-31T12:00:00Z")).decode()


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    prefix = Prefix.at(tmp_path / "host")
    prefix.create()
    (tmp_path / "evil").mkdir()
    for name in (NEW, OLD):
        (prefix.releases / name).mkdir()
    prefix.current.symlink_to(f"releases/{NEW}")
    return prefix


def edit(prefix: Prefix, before: str) -> None:
    change_path(prefix).write_text(RECORD.replace(f"before={OLD}", f"before={before}"))


def test_unattacked_a_switch_that_was_cut_off_is_undone(prefix: Prefix) -> None:
    edit(prefix, OLD)
    assert undo_switch(prefix) is not None
    assert current_target(prefix) == f"releases/{OLD}"


@pytest.mark.parametrize("before", ["../../../../evil", "/etc", "$(reboot)", f"{OLD}/..", OLD[:-1], f"-{OLD[-12:]}"])
def test_attacked_by_a_name_that_is_no_release(prefix: Prefix, before: str) -> None:
    edit(prefix, before)
    refused(ROW, lambda: undo_switch(prefix), "change.unreadable", str(change_path(prefix)))
    assert current_target(prefix) == f"releases/{NEW}"


def test_attacked_by_a_phase_of_another_operation(prefix: Prefix) -> None:
    change_path(prefix).write_text(RECORD.replace("phase=switching", "phase=removing"))
    refused(ROW, lambda: undo_switch(prefix), "change.unreadable", str(change_path(prefix)))


def test_unguarded_a_folder_from_elsewhere_serves(prefix: Prefix, tmp_path: Path) -> None:
    edit(prefix, "../../../../evil")
    with guard_off(ROW.guard, lambda *_: None):
        undo_switch(prefix)
    assert prefix.current.resolve() == tmp_path / "evil"
