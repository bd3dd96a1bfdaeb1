"""The script that goes back: it refuses before it touches, it is whole after a kill, and it needs a shell alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.host.change.change_file import (
    COMMITTING,
    INSTALL,
    RESTORE,
    ROLLBACK,
    SWITCHING,
    TRYING,
    UNINSTALL,
    read_change,
)
from appliance.host.change.journal import Journal
from appliance.host.change.recovery import undo_switch
from appliance.host.change.rollback_program import install_rollback_program, program_problems, rollback_program
from appliance.host.layout.install_lock import hold
from signing.errors import ApplyBrokenError
from tests.appliance.shell_host import EACH_SHELL, NEW, OLD, THIRD, ShellHost
from tests.toy import NOW

BOUNDARIES = 40
"""More than the script has; the ones beyond its last are runs that nothing kills."""


@pytest.fixture
def host(tmp_path: Path) -> ShellHost:
    return ShellHost.make(tmp_path)


@pytest.fixture
def machine(tmp_path: Path) -> ShellHost:
    """With units, and a systemctl that answers yes and writes down what it was asked."""
    host = ShellHost.make(tmp_path, units=True)
    host.tool("systemctl", f'echo "$*" >>{tmp_path}/calls\n[ "$1" != is-failed ]')
    return host


def calls(machine: ShellHost) -> list[str]:
    return (machine.tools.parent / "calls").read_text().splitlines()


def steps(host: ShellHost) -> list[tuple[str, str, str]]:
    entries = Journal(host.prefix.journal / "install.jsonl", lambda: NOW).read()
    return [(entry.step, entry.state, entry.release) for entry in entries]


@pytest.mark.parametrize("shell", EACH_SHELL)
def test_rollback_goes_to_the_release_before_and_again_back(host: ShellHost, shell: str) -> None:
    done = host.run(shell=shell)
    assert (done.returncode, done.stdout) == (0, f"{OLD} serves; {NEW} served before\n"), done.stderr
    host.assert_whole(OLD)
    assert host.previous == NEW
    assert steps(host) == [("rollback", "started", OLD), ("rollback", "done", OLD)]
    assert host.run(shell=shell).returncode == 0
    host.assert_whole(NEW)
    assert host.previous == OLD


def test_rollback_runs_with_the_programs_of_busybox_alone(host: ShellHost) -> None:
    if not shutil.which("busybox"):
        pytest.skip("no busybox")
    names = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        (host.tools / name).symlink_to(str(shutil.which("busybox")))
    flock = host.tools / "flock"
    if not flock.exists():
        flock.symlink_to(str(shutil.which("flock")))
    script = rollback_program(host.prefix)
    script.write_text(script.read_text().replace(":/usr/sbin:/usr/bin:/sbin:/bin", ""))
    done = host.run(shell="busybox")
    assert done.returncode == 0, done.stderr
    host.assert_whole(OLD)


def test_rollback_names_the_release_and_one_that_serves_is_left_alone(host: ShellHost) -> None:
    host.add_release(THIRD)
    assert host.run(THIRD).returncode == 0
    host.assert_whole(THIRD)
    before = host.tree()
    done = host.run(THIRD)
    assert (done.returncode, done.stdout) == (0, f"{THIRD} serves already\n")
    assert host.tree() == before


def spoil(host: ShellHost, fault: str) -> None:
    old = host.release(OLD)
    if fault == "REVOKED":
        (old / "REVOKED").touch()
    elif fault == "a link REVOKED":
        (old / "REVOKED").symlink_to("nowhere")
    elif fault == "state":
        (host.prefix.state / "state-format").write_text("2\n")
    elif fault == "odd state":
        (host.prefix.state / "state-format").write_text("")
    elif fault == "other STATE":
        (old / "STATE").write_text("reads=$(reboot)\n")
    elif fault == "no previous":
        (host.prefix.opt / "previous").unlink()
    elif fault == "previous elsewhere":
        (host.prefix.opt / "previous").unlink()
        (host.prefix.opt / "previous").symlink_to("../../etc")
    elif fault == "no model":
        shutil.rmtree(host.prefix.models / OLD)
    else:
        (old / fault).unlink()


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("REVOKED", 4, "revoked (release.revoked)"),
        ("a link REVOKED", 4, "revoked (release.revoked)"),
        ("state", 6, "found format 2"),
        ("odd state", 6, "found format unreadable"),
        ("other STATE", 6, "expected format unknown"),
        ("RELEASE.ok", 9, "found no RELEASE.ok"),
        ("venv/bin/python", 9, "found no venv/bin/python"),
        ("config/gateway.json", 9, "found no config/gateway.json"),
        ("config/engine-toy.json", 9, "found no config/engine-*.json"),
        ("no model", 9, "toy.gguf"),
        ("no previous", 2, "rollback.nowhere"),
        ("previous elsewhere", 2, "rollback.nowhere"),
    ],
)
def test_release_that_may_not_serve_is_refused_and_nothing_is_touched(
    host: ShellHost, fault: str, code: int, said: str
) -> None:
    spoil(host, fault)
    before = host.tree()
    done = host.run()
    assert done.returncode == code
    assert said in done.stderr
    assert "hint: " in done.stderr
    assert host.tree() == before


@pytest.mark.parametrize("word", ["9.9.9-999999999999", "../../../etc", "a b", "1.0.0-00000000000", "$(reboot)", "*"])
def test_other_names_are_wrong_commands(host: ShellHost, word: str) -> None:
    before = host.tree()
    done = host.run(word)
    assert done.returncode == 2
    assert f"one of {OLD} {NEW}" in done.stderr
    assert host.tree() == before


def test_unknown_option_and_second_word_are_wrong_commands(host: ShellHost) -> None:
    assert host.run("--force").returncode == 2
    assert host.run(OLD, NEW).returncode == 2
    assert host.run("--help").stdout.startswith("Goes back to another installed release")
    host.assert_whole(NEW)


def test_other_state_that_the_release_reads_too_is_no_reason(host: ShellHost) -> None:
    (host.prefix.state / "state-format").write_text("2\n")
    (host.release(OLD) / "STATE").write_text("reads=1:2\nwrites=1\n")
    assert host.run().returncode == 0
    host.assert_whole(OLD)


def test_another_change_at_work_ends_it_with_75(host: ShellHost) -> None:
    script = rollback_program(host.prefix)
    script.write_text(script.read_text().replace("tries=5", "tries=1"))
    with hold(host.prefix):
        assert host.run().returncode == 75
    host.assert_whole(NEW)


def test_changes_that_nobody_applied_are_kept_beside(host: ShellHost) -> None:
    host.prefix.site_file.write_text("port: 1\n")
    done = host.run()
    assert "kept your changes" in done.stderr
    host.assert_whole(OLD)
    assert (host.prefix.etc / "site.yaml.replaced").read_text() == "port: 1\n"


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


def test_rollback_supersedes_a_release_on_trial(host: ShellHost) -> None:
    host.begin(INSTALL, TRYING)
    assert host.run().returncode == 0
    host.assert_whole(OLD)


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


def test_services_of_the_release_that_is_left_are_not_waited_for(machine: ShellHost) -> None:
    assert machine.run().returncode == 0
    machine.assert_whole(OLD, units=True)
    left, taken = (f"appliance-engine@{name[-12:]}-toy.service" for name in (NEW, OLD))
    found = calls(machine)
    assert [call for call in found if call.startswith("stop") or call == f"disable {left}"] == [f"disable {left}"]
    assert f"--no-block stop {left}" in found
    assert found.index(f"start {taken}") < found.index("restart appliance-gateway.service")


def test_release_that_users_do_not_reach_gives_way_to_the_one_before(machine: ShellHost) -> None:
    fails = f'grep -q {OLD} {machine.prefix.units}/appliance-gateway.service && [ "$1" = restart ] && exit 1'
    machine.tool("systemctl", f'{fails}\n[ "$1" != is-failed ]')
    done = machine.run()
    assert (done.returncode, f"{NEW} serves again" in done.stderr) == (7, True)
    machine.assert_whole(NEW, units=True)


def test_nothing_that_hangs_is_waited_for_longer_than_the_limit(machine: ShellHost) -> None:
    script = rollback_program(machine.prefix)
    script.write_text(script.read_text().replace("limit=300", "limit=1"))
    machine.tool("systemctl", '[ "$1" != restart ] || exec sleep 1000')
    done = machine.run()
    assert (done.returncode, "rollback.broken" in done.stderr) == (8, True)


FULL = """
import sys
sys.path[:0] = sys.argv[2].split(":")
from pathlib import Path
from appliance.host.change.way_back import keep_reserve
from tests.appliance.shell_host import OLD, ShellHost
folder = Path(sys.argv[1])
host = ShellHost.make(folder)
assert keep_reserve(host.prefix)
host.prefix.site_file.write_text("port: 1\\n")
try:
    with open(folder / "fill", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
except OSError:
    pass
done = host.run()
assert done.returncode == 0, done.stderr
host.assert_whole(OLD)
assert not (host.prefix.state / ".reserve").exists()
print("whole")
"""


def test_rollback_works_on_a_full_disk_from_what_was_reserved(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("this machine refuses namespaces of users")
    mount = 'mount -t tmpfs -o size=3m tmpfs "$1" && exec "$0" -I -B -c "$2" "$1" "$3"'
    words = [sys.executable, str(tmp_path), FULL, ":".join(sys.path)]
    done = subprocess.run(["unshare", "-rm", "sh", "-c", mount, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr


def test_program_lies_on_the_host_and_a_changed_one_is_drift(host: ShellHost) -> None:
    script = rollback_program(host.prefix)
    [problem] = program_problems(host.prefix)  # the copy of these tests has another PATH
    assert (problem.exit_code, problem.subject) == (9, str(script))
    assert install_rollback_program(host.prefix)
    assert program_problems(host.prefix) == []
    assert not install_rollback_program(host.prefix)
    script.chmod(0o644)
    assert len(program_problems(host.prefix)) == 1
    script.unlink()
    assert len(program_problems(host.prefix)) == 1


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
