"""gc keeps what serves, the way back, pins and what a change needs; the rest goes, and nothing beside it."""

from __future__ import annotations

import errno
import os
from datetime import datetime
from pathlib import Path

import pytest

from appliance.host.change.change_file import (
    INSTALL,
    REMOVING,
    RESTORE,
    RESTORING,
    TRYING,
    UNINSTALL,
    HostChange,
    clear_change,
    write_change,
)
from appliance.host.change.way_back import keep_reserve, point_previous, return_folder
from appliance.host.layout.install_lock import hold
from appliance.host.layout.places import OK_FILE, REVOKED_FILE, STAGED_FILE
from appliance.host.maintenance import cleanup
from appliance.host.maintenance.cleanup import clean_up
from appliance.host.maintenance.garbage import find_garbage
from appliance.host.maintenance.pins import pin, pinned, unpin
from signing.errors import BusyError, DamagedError, NotTrustedError, UsageError
from tests.appliance.host.held_releases import empty_host, hold_release, model_of
from tests.appliance.sim_host import SimHost
from tests.toy import NOW


def now() -> datetime:
    return NOW


@pytest.fixture
def host(tmp_path: Path) -> SimHost:
    return empty_host(tmp_path)


def kept(host: SimHost, keep: int = 1) -> dict[str, str]:
    found = find_garbage(host.prefix, keep)
    return {one.path.name.rpartition("-")[0]: one.reason for one in found.kept}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_current_and_the_newest_beside_it_stay_and_models_that_only_others_use_go(host: SimHost) -> None:
    old = hold_release(host, "1.0.1")
    middle = hold_release(host, "1.0.2", model="shared")
    current = hold_release(host, "1.0.3", model="shared", serves=True)
    gone = model_of(old)
    (host.prefix.runs / "1").mkdir()
    (host.prefix.runs / "2").mkdir()
    (host.prefix.scratch / "left").write_bytes(b"x" * 10_000)
    return_folder(host.prefix, old.name).mkdir(parents=True)
    found = clean_up(host.prefix, 1, now)
    assert found.releases == (old,)
    assert [path.name for path in found.models] == [gone]
    assert found.size_bytes > 10_000
    assert names(host.prefix.releases) == sorted((middle.name, current.name))
    assert names(host.prefix.models) == [model_of(current)]
    assert names(host.prefix.runs) == ["2"]
    assert names(host.prefix.scratch) == []
    assert not return_folder(host.prefix, old.name).exists()
    assert (host.prefix.state / ".reserve").stat().st_size == 1 << 20
    assert clean_up(host.prefix, 1, now).paths == ()


def test_what_a_superseded_uninstall_or_restore_has_left_goes_and_that_of_an_unfinished_one_stays(
    host: SimHost,
) -> None:
    hold_release(host, "1.0.1", serves=True)
    left = (host.prefix.state / "restore", host.prefix.opt / "uninstall")
    left[0].mkdir()
    left[1].write_bytes(b"")
    for op, phase, kept_one in ((RESTORE, RESTORING, left[0]), (UNINSTALL, REMOVING, left[1])):
        write_change(host.prefix, HostChange(op, "", "", phase, "2026-01-02T03:04:05Z"))
        assert set(find_garbage(host.prefix, 1).leftovers) == set(left) - {kept_one}
    clear_change(host.prefix)
    clean_up(host.prefix, 1, now)
    assert not any(path.exists() for path in left)


def test_a_dry_run_changes_nothing(host: SimHost) -> None:
    hold_release(host, "1.0.1")
    hold_release(host, "1.0.2")
    hold_release(host, "1.0.3", serves=True)
    before = sorted(host.prefix.root.rglob("*"))
    assert len(find_garbage(host.prefix, 1).releases) == 1
    assert sorted(host.prefix.root.rglob("*")) == before


def test_the_way_back_pins_staged_ones_and_those_of_a_change_stay(host: SimHost) -> None:
    releases = [hold_release(host, f"1.0.{number}") for number in range(1, 7)]
    hold_release(host, "1.0.7", serves=True)
    point_previous(host.prefix, f"releases/{releases[0].name}")
    pin(host.prefix, releases[1].name)
    (releases[2] / OK_FILE).rename(releases[2] / STAGED_FILE)
    write_change(host.prefix, HostChange(INSTALL, releases[4].name, releases[3].name, TRYING, "2026-01-02T03:04:05Z"))
    assert kept(host) == {
        "1.0.1": "the way back",
        "1.0.2": "pinned",
        "1.0.3": "staged, not switched to",
        "1.0.4": "of an unfinished install",
        "1.0.5": "of an unfinished install",
        "1.0.7": "serves",
    }
    assert kept(host, keep=2)["1.0.6"] == "one of 2 beside the one that serves"


def test_neither_a_revoked_nor_an_incomplete_release_is_one_of_those_that_are_kept(host: SimHost) -> None:
    hold_release(host, "1.0.1")
    revoked = hold_release(host, "1.0.2")
    (revoked / REVOKED_FILE).write_bytes(b"")
    hold_release(host, "1.0.3", is_complete=False)
    hold_release(host, "1.0.4", serves=True)
    assert list(kept(host)) == ["1.0.1", "1.0.4"]


def test_what_a_person_put_beside_stays(host: SimHost, tmp_path: Path) -> None:
    hold_release(host, "1.0.1", serves=True)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_bytes(b"")
    (host.prefix.releases / "notes").mkdir()
    (host.prefix.releases / "9.9.9-0123456789ab").symlink_to(mine)
    (host.prefix.models / "README").write_bytes(b"")
    (host.prefix.models / ("a" * 64)).symlink_to(mine)
    assert clean_up(host.prefix, 1, now).paths == ()
    assert (mine / "file").exists()


def test_link_in_a_release_that_goes_is_not_followed(host: SimHost, tmp_path: Path) -> None:
    old = hold_release(host, "1.0.1", is_complete=False)
    hold_release(host, "1.0.2", serves=True)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_bytes(b"")
    (old / "link").symlink_to(mine)
    closed = old / "closed"
    closed.mkdir()
    (closed / "file").write_bytes(b"")
    closed.chmod(0o500)
    clean_up(host.prefix, 1, now)
    assert not old.exists()
    assert (mine / "file").exists()


def test_full_disk_does_not_stop_it(host: SimHost, monkeypatch: pytest.MonkeyPatch) -> None:
    old = hold_release(host, "1.0.1", is_complete=False)
    hold_release(host, "1.0.2", serves=True)
    keep_reserve(host.prefix)
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(os, "pwrite", lambda *_: full(0, b""))
    clean_up(host.prefix, 1, now)
    monkeypatch.setattr(os, "write", real)
    assert not old.exists()
    assert not (host.prefix.state / ".reserve").exists()


@pytest.mark.parametrize("after", range(6))
def test_kill_at_any_removal_leaves_a_release_whole_or_without_its_mark(
    host: SimHost, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    old = hold_release(host, "1.0.1")
    (old / REVOKED_FILE).write_bytes(b"")
    current = hold_release(host, "1.0.2", serves=True)
    left = [after]

    class Killed(BaseException):
        pass

    def counted(act: object) -> object:
        def run(*arguments: object, **options: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return act(*arguments, **options)  # type: ignore[operator]

        return run

    before = sorted(old.rglob("*"))
    monkeypatch.setattr(os, "unlink", counted(os.unlink))
    monkeypatch.setattr(Path, "unlink", counted(Path.unlink))
    with pytest.raises(Killed):
        clean_up(host.prefix, 1, now)
    monkeypatch.undo()
    if (old / OK_FILE).exists():
        assert sorted(old.rglob("*")) == before
    clean_up(host.prefix, 1, now)
    assert names(host.prefix.releases) == [current.name]


def test_without_a_release_or_with_a_wrong_link_nothing_is_removed(host: SimHost) -> None:
    with pytest.raises(UsageError):
        clean_up(host.prefix, 1, now)
    old = hold_release(host, "1.0.1", is_complete=False)
    host.prefix.current.symlink_to("/tmp")
    with pytest.raises(NotTrustedError):
        clean_up(host.prefix, 1, now)
    assert old.exists()


def test_beside_an_install_it_waits_and_then_leaves(host: SimHost, monkeypatch: pytest.MonkeyPatch) -> None:
    hold_release(host, "1.0.1", serves=True)
    monkeypatch.setattr(cleanup, "hold", lambda prefix: hold(prefix, wait_s=0.1))
    with hold(host.prefix), pytest.raises(BusyError):
        clean_up(host.prefix, 1, now)


def test_list_of_a_kept_release_that_is_gone_keeps_every_model(host: SimHost) -> None:
    old = hold_release(host, "1.0.1", is_complete=False)
    model = model_of(old)
    current = hold_release(host, "1.0.2", serves=True)
    (current / "bundle" / "index.json").unlink()
    with pytest.raises(DamagedError) as caught:
        clean_up(host.prefix, 1, now)
    assert (caught.value.code, caught.value.subject) == ("release.list-changed", current.name)
    assert not old.exists()
    assert model in names(host.prefix.models)


def test_pin_is_of_an_installed_release_and_goes_with_it(host: SimHost) -> None:
    old = hold_release(host, "1.0.1", is_complete=False)
    hold_release(host, "1.0.2", serves=True)
    with pytest.raises(UsageError):
        pin(host.prefix, "9.9.9-0123456789ab")
    with pytest.raises(UsageError):
        pin(host.prefix, "../trust")
    assert pin(host.prefix, old.name)
    assert not pin(host.prefix, old.name)
    assert pinned(host.prefix) == {old.name}
    assert unpin(host.prefix, old.name)
    assert not unpin(host.prefix, old.name)
    clean_up(host.prefix, 1, now)
    assert pinned(host.prefix) == set()
