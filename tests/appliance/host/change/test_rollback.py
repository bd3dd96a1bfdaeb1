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
    TRYING,
    read_change,
)
from appliance.host.change.journal import Journal
from appliance.host.change.rollback_program import (
    install_rollback_program,
    program_files,
    program_problems,
    rollback_program,
)
from appliance.host.layout.install_lock import hold
from appliance.host.layout.places import OK_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.process import systemctl
from tests.appliance.host.change.shell_host import EACH_SHELL, NEW, OLD, THIRD, ShellHost
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
    elif fault == "a folder current":
        host.prefix.current.unlink()
        host.prefix.current.mkdir()
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
        ("a folder current", 9, "release.current"),
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


def test_where_no_release_was_before_the_others_are_listed(host: ShellHost) -> None:
    (host.prefix.opt / "previous").unlink()
    done = host.run()
    assert done.returncode == 2
    assert f"found  {OLD}" in done.stderr
    assert NEW not in done.stderr
    assert f"appliance rollback RELEASE --prefix {host.prefix.root}" in done.stderr
    for path in host.prefix.releases.iterdir():
        if path.name != NEW:
            shutil.rmtree(path)
    done = host.run()
    assert (done.returncode, "found  none" in done.stderr) == (2, True)
    assert "appliance rollback RELEASE" not in done.stderr


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


def test_rollback_supersedes_a_release_on_trial(host: ShellHost) -> None:
    host.begin(INSTALL, TRYING)
    assert host.run().returncode == 0
    host.assert_whole(OLD)


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


def test_release_on_trial_stays_on_trial_where_the_one_before_does_not_serve(machine: ShellHost) -> None:
    machine.begin(INSTALL, TRYING)
    fails = f'grep -q {OLD} {machine.prefix.units}/appliance-gateway.service && [ "$1" = restart ] && exit 1'
    machine.tool("systemctl", f'echo "$*" >>{machine.tools}/called\n{fails}\n[ "$1" != is-failed ]')
    assert machine.run().returncode == 7
    change = read_change(machine.prefix)
    assert change is not None
    assert (change.release, change.before, change.phase) == (NEW, OLD, TRYING)
    assert "--no-block restart appliance-trial.service" in (machine.tools / "called").read_text()


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
from appliance.host.change.change_file import INSTALL, TRYING
from tests.appliance.host.change.shell_host import NEW, OLD, ShellHost
folder = Path(sys.argv[1])
host = ShellHost.make(folder)
is_kept = sys.argv[3] == "kept"
if is_kept:
    assert keep_reserve(host.prefix)
else:
    host.begin(INSTALL, TRYING)
host.prefix.site_file.write_text("port: 1\\n")
try:
    with open(folder / "fill", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
except OSError:
    pass
before = host.tree()
done = host.run()
if not is_kept:
    assert (done.returncode, "disk.full" in done.stderr, host.tree() == before) == (1, True, True), done.stderr
    done = host.run("--return")
assert done.returncode == 0, done.stderr
host.assert_whole(OLD)
assert not (host.prefix.state / ".reserve").exists()
print("whole")
"""


@pytest.mark.parametrize("reserve", ["kept", "gone"])
def test_rollback_works_on_a_full_disk_from_what_was_reserved(tmp_path: Path, reserve: str) -> None:
    """A return works without the reserve, too: its record is there."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("this machine refuses namespaces of users")
    mount = 'mount -t tmpfs -o size=3m tmpfs "$1" && exec "$0" -I -B -c "$2" "$1" "$3" "$4"'
    words = [sys.executable, str(tmp_path), FULL, ":".join(sys.path), reserve]
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


def test_program_of_the_newer_release_is_right_after_a_rollback(host: ShellHost) -> None:
    install_rollback_program(host.prefix)
    script = rollback_program(host.prefix)
    script.write_bytes(script.read_bytes() + b"# of a newer release\n")
    assert len(program_problems(host.prefix)) == 1
    held = host.release(NEW) / "venv/lib/python3.11/site-packages/appliance/host/change/rollback.sh"
    held.parent.mkdir(parents=True)
    held.write_bytes(script.read_bytes())
    assert program_problems(host.prefix) == []
    (host.release(NEW) / OK_FILE).unlink()  # an install that never ended has written nothing to the host
    assert len(program_problems(host.prefix)) == 1


def test_host_without_a_journal_or_a_run_folder(host: ShellHost, tmp_path: Path) -> None:
    """A redirection that fails must end no shell: in dash, one of a special command would."""
    shutil.rmtree(host.prefix.journal)
    done = host.run()
    assert (done.returncode, "rollback.rights" in done.stderr) == (1, True)
    host.assert_whole(NEW)
    host.prefix.create()
    shutil.rmtree(host.prefix.run_dir)
    assert host.run().returncode == 0
    host.assert_whole(OLD)
    (tmp_path / "again").mkdir()
    machine = ShellHost.make(tmp_path / "again", units=True)
    machine.tool("systemctl", '[ "$1" != is-failed ]')
    shutil.rmtree(machine.prefix.run_dir)
    listens = machine.prefix.run_dir / f"{OLD[-12:]}-toy"
    machine.tool(
        "systemctl",
        f'[ "$1" != start ] || {{ mkdir -p {listens} && touch {listens}/engine.sock; }}\n[ "$1" != is-failed ]',
    )
    assert machine.run().returncode == 0
    machine.assert_whole(OLD, units=True)


def test_engine_that_never_listens_is_no_release_that_serves(machine: ShellHost) -> None:
    """Its unit runs, and verifies the model for ever; what an earlier engine has left there does not count."""
    script = rollback_program(machine.prefix)
    script.write_text(script.read_text().replace("limit=300", "limit=1"))
    machine.tool(
        "systemctl",
        f'[ "$1" != is-failed ] || exit 1\n[ "$1 $3" != "is-active appliance-engine@{OLD[-12:]}-toy.service" ]',
    )
    done = machine.run()
    assert (done.returncode, f"{NEW} serves again" in done.stderr) == (7, True)
    machine.assert_whole(NEW, units=True)


def test_units_that_an_earlier_run_only_wrote_are_enabled(host: ShellHost, monkeypatch: pytest.MonkeyPatch) -> None:
    enabled: list[str] = []
    monkeypatch.setattr(Prefix, "is_system", True)
    monkeypatch.setattr(systemctl, "version", lambda: 252)
    monkeypatch.setattr(systemctl, "enable", enabled.extend)
    for path, (data, mode) in program_files(host.prefix).items():
        path.write_bytes(data)
        path.chmod(mode)
    assert not install_rollback_program(host.prefix)
    assert enabled == ["appliance-recover.service", "appliance-trial.service"]


@pytest.mark.parametrize("phase", [TRYING, COMMITTING])
def test_rollback_to_the_release_on_trial_does_not_end_its_trial(host: ShellHost, phase: str) -> None:
    """Without its commit, the root is not pinned, and what served before goes on running."""
    host.begin(INSTALL, phase)
    before = host.tree()
    done = host.run(NEW)
    assert (done.returncode, "on trial" in done.stdout) == (0, True)
    assert host.tree() == before
