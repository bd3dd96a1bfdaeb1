"""A change that was cut off is ended at a boot, and a failed trial goes back; each is whole after a kill."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from appliance.host.change import rollback_program
from appliance.host.change.change_file import (
    COMMITTING,
    INSTALL,
    RESTORE,
    ROLLBACK,
    SWITCHING,
    TRYING,
    UNINSTALL,
    HostChange,
    change_path,
    format_change,
    read_change,
)
from appliance.host.change.journal import Journal
from appliance.host.change.recovery import undo_switch
from appliance.host.layout.install_lock import hold
from signing.errors import ApplyBrokenError, DriftError
from tests.appliance.host.change.shell_host import EACH_SHELL, NEW, OLD, SINCE, ShellHost
from tests.toy import NOW

BOUNDARIES = 40
"""More than the script has; the ones beyond its last are runs that nothing kills."""


@pytest.fixture
def host(tmp_path: Path) -> ShellHost:
    return ShellHost.make(tmp_path)


def steps(host: ShellHost) -> list[tuple[str, str, str]]:
    entries = Journal(host.prefix.journal / "install.jsonl", lambda: NOW).read()
    return [(entry.step, entry.state, entry.release) for entry in entries]


@pytest.mark.ci
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_change_of_the_disk_it_is_finished_at_boot(tmp_path: Path, when: str) -> None:
    reached = set()
    for number in range(1, BOUNDARIES):
        (tmp_path / str(number)).mkdir()
        host = ShellHost.make(tmp_path / str(number), units=True)
        host.tool("systemctl", '[ "$1" != is-failed ]')
        host.kill_at(number, when)
        code = host.run().returncode
        host.stop_killing()
        unfinished = read_change(host.prefix)
        assert code == (-9 if code else 0)
        assert unfinished is None or (unfinished.op, unfinished.release, unfinished.before) == (ROLLBACK, OLD, NEW)
        started = host.prefix.site_file.read_text() != f"port: {NEW}\n" or host.serves != NEW
        assert unfinished or not started or host.serves == OLD, "what is begun is written down first"
        assert host.run("--recover").returncode == 0
        host.assert_whole(OLD if unfinished or host.serves == OLD else NEW, units=True)
        if code == 0:
            break
        reached.add(number)
    assert code == 0, "there are more boundaries than this test reaches"
    assert len(reached) > 15


@pytest.mark.ci
@pytest.mark.parametrize("phase", [SWITCHING, TRYING])
def test_return_that_is_killed_anywhere_is_finished_at_boot(tmp_path: Path, phase: str) -> None:
    for number in range(1, BOUNDARIES):
        (tmp_path / str(number)).mkdir()
        host = ShellHost.make(tmp_path / str(number), units=True)
        host.tool("systemctl", '[ "$1" != is-failed ]')
        host.begin(INSTALL, phase)
        host.kill_at(number, "after")
        code = host.run("--return").returncode
        host.stop_killing()
        assert host.run("--recover").returncode == 0
        unfinished = read_change(host.prefix)
        if unfinished:  # nothing was switched: the trial decides
            assert (phase, host.serves) == (TRYING, NEW)
            assert host.run("--return").returncode == 0
        host.assert_whole(OLD, units=True)
        if code == 0:
            return
    raise AssertionError("there are more boundaries than this test reaches")


def test_boot_undoes_an_install_that_was_cut_off_while_it_switched(host: ShellHost) -> None:
    host.begin(INSTALL, SWITCHING)
    assert host.run("--recover").returncode == 0
    host.assert_whole(OLD)
    assert host.previous == ""
    assert steps(host)[-1] == ("return", "done", OLD)


def test_boot_leaves_a_release_on_trial_alone(host: ShellHost) -> None:
    host.begin(INSTALL, TRYING)
    before = host.tree()
    assert host.run("--recover").returncode == 0
    assert host.tree() == before


def test_boot_without_a_change_does_nothing(host: ShellHost) -> None:
    before = host.tree()
    assert host.run("--recover").returncode == 0
    assert host.tree() == before


def test_configuration_that_was_applied_anew_is_undone_from_what_was_saved(host: ShellHost) -> None:
    host.begin(INSTALL, SWITCHING, NEW, NEW)
    for name in ("site.yaml", "config/gateway.json", "RELEASE.json"):
        (host.release(NEW) / name).write_text("half\n")
    (host.release(NEW) / "config/engine-new.json").write_text("{}")
    host.prefix.site_file.write_text("half\n")
    assert host.run("--recover").returncode == 0
    host.assert_whole(NEW)
    assert (host.release(NEW) / "RELEASE.json").read_text() == f"facts of {NEW}\n"
    assert not (host.release(NEW) / "config/engine-new.json").exists()


@pytest.mark.parametrize(("op", "phase"), [(UNINSTALL, "removing"), (RESTORE, "restoring")])
def test_boot_finishes_other_changes_with_their_own_programs(host: ShellHost, op: str, phase: str) -> None:
    host.begin(op, phase, "", "")
    python, uninstall = host.release(NEW) / "venv/bin/python", host.prefix.opt / "uninstall"
    python.unlink()
    for program in (python, uninstall):
        program.write_text(f'#!/bin/sh\necho "${{0##*/}} $*" >{host.tools}/words\n')
        program.chmod(0o755)
    assert host.run("--recover").returncode == 0
    root = host.prefix.root
    own = {
        UNINSTALL: f"uninstall {root}",
        RESTORE: f"python -I -B -m appliance.cli.main restore --resume --prefix {root}",
    }
    assert (host.tools / "words").read_text() == f"{own[op]}\n"


@pytest.mark.parametrize(("op", "phase"), [(UNINSTALL, "removing"), (RESTORE, "restoring")])
def test_rollback_supersedes_other_changes_and_boot_names_what_is_missing(host: ShellHost, op: str, phase: str) -> None:
    host.begin(op, phase, "", "")
    (host.release(NEW) / "venv/bin/python").unlink()
    done = host.run("--recover")
    assert (done.returncode, "change.open" in done.stderr) == (8, True)
    assert host.run(OLD).returncode == 0
    host.assert_whole(OLD)


@pytest.mark.parametrize(
    "text", ["", "op=install\n", "format=1\nop=$(reboot)\n", "format=2\nop=install\nrelease=\n", "\x00" * 9]
)
def test_record_that_breaks_its_grammar_decides_nothing(host: ShellHost, text: str) -> None:
    (host.prefix.state / "change").write_text(text)
    before = host.tree()
    done = host.run("--recover")
    assert (done.returncode, "change.damaged" in done.stderr) == (8, True)
    assert host.tree() == before


def test_return_to_a_revoked_release_is_refused_and_the_new_one_stays(host: ShellHost) -> None:
    host.begin(INSTALL, TRYING)
    (host.release(OLD) / "REVOKED").touch()
    done = host.run("--return")
    assert (done.returncode, "release.revoked" in done.stderr) == (8, True)
    assert host.serves == NEW
    assert steps(host) == [("return", "failed", NEW)]


def test_first_install_that_was_cut_off_leaves_nothing_that_serves(host: ShellHost) -> None:
    host.begin(INSTALL, SWITCHING, NEW, "")
    assert host.run("--recover").returncode == 0
    assert not host.prefix.current.is_symlink()
    assert read_change(host.prefix) is None


@pytest.mark.parametrize("word", ["--recover", "--return"])
def test_release_that_is_good_is_never_left_by_itself(host: ShellHost, word: str) -> None:
    host.begin(INSTALL, COMMITTING)
    before = host.tree()
    assert host.run(word).returncode == 0
    assert host.tree() == before


def test_next_install_finishes_a_rollback_that_was_cut_off(host: ShellHost) -> None:
    host.begin(ROLLBACK, SWITCHING, OLD, NEW)
    with hold(host.prefix):
        assert undo_switch(host.prefix) is None
    host.assert_whole(OLD)
    assert host.previous == NEW


def test_rollback_that_cannot_be_finished_is_undone_at_boot_and_named(host: ShellHost) -> None:
    host.begin(ROLLBACK, SWITCHING, OLD, NEW)
    shutil.rmtree(host.release(OLD))
    with hold(host.prefix):
        undo_switch(host.prefix)
    host.assert_whole(NEW)
    host.begin(ROLLBACK, SWITCHING, OLD, NEW)
    shutil.rmtree(host.release(NEW))
    with hold(host.prefix), pytest.raises(ApplyBrokenError) as caught:
        undo_switch(host.prefix)
    assert "no such release" in caught.value.found


GOOD = format_change(HostChange(INSTALL, NEW, OLD, COMMITTING, SINCE)).decode()
ODD = [
    GOOD,
    GOOD[:-1],
    GOOD + "\n",
    GOOD + "more=1\n",
    "\n" + GOOD,
    *(
        GOOD.replace(line, other)
        for line in GOOD.splitlines()
        for other in ("", line.partition("=")[0], f"{line}=", f" {line}")
    ),
    *(GOOD.replace("boots=0", f"boots={value}") for value in ("", "999999", "1000000", "-1", "1a", "00")),
    *(GOOD.replace("purge=no", f"purge={value}") for value in ("yes", "", "perhaps")),
    *(GOOD.replace("note=", f"note={value}") for value in ("gate.failed", "a b", "é", "$(reboot)", "a;b", "`a`")),
    *(GOOD.replace(SINCE, value) for value in ("", "now", "2026-01-02T03:04:05", "2026-01-02 03:04:05Z")),
    *(
        GOOD.replace(NEW, value)
        for value in ("", "../..", "1.0.0", ".-000000000001", "a-00000000000g", "-000000000001")
    ),
    *(GOOD.replace("committing", value) for value in ("", "removing", "trying+", "Committing")),
    *(GOOD.replace("op=install", f"op={value}") for value in ("", "rollback", "uninstall", "reboot")),
    GOOD.replace("format=1", "format=2"),
    "".join(reversed(GOOD.splitlines(keepends=True))),
]


@pytest.mark.parametrize("shell", EACH_SHELL)
def test_shell_and_python_read_the_same_records(host: ShellHost, shell: str) -> None:
    """One that both accept; the others are refused by both. `committing` is left alone by a boot."""
    for text in ODD:
        change_path(host.prefix).write_text(text)
        try:
            read_change(host.prefix)
            code = 0
        except DriftError:
            code = 8
        done = host.run("--recover", shell=shell)
        assert (done.returncode, "change.damaged" in done.stderr) == (code, code == 8), (text, done.stderr)


def test_rollback_to_what_serves_leaves_the_way_back_when_it_is_finished(host: ShellHost) -> None:
    host.begin(ROLLBACK, SWITCHING, NEW, NEW)
    assert host.run("--recover").returncode == 0
    host.assert_whole(NEW)
    assert host.previous == OLD


def test_rollback_that_is_never_finished_is_an_error(host: ShellHost, monkeypatch: pytest.MonkeyPatch) -> None:
    host.begin(ROLLBACK, SWITCHING, OLD, NEW)
    monkeypatch.setattr(rollback_program, "install_rollback_program", lambda _prefix: False)
    monkeypatch.setattr(rollback_program, "TIMEOUT_S", 0.1)
    host.tool("cp", "exec sleep 5")
    with hold(host.prefix), pytest.raises(ApplyBrokenError, match=r"rollback\.cut-off.*nothing after"):
        undo_switch(host.prefix)


def test_next_install_never_returns_to_a_revoked_release(host: ShellHost) -> None:
    host.begin(INSTALL, SWITCHING)
    (host.release(OLD) / "REVOKED").touch()
    assert host.run("--recover").returncode == 8
    with hold(host.prefix):
        assert undo_switch(host.prefix) is None
    change = read_change(host.prefix)
    assert change is not None
    assert (host.serves, change.phase) == (NEW, SWITCHING)
