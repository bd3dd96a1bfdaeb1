"""What a newcomer's two commands do before the program exists: system packages and the environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A folder for PATH with the few programs that every machine has."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "cat", "env", "id", "mktemp", "rm"):
        (folder / name).symlink_to(shutil.which(name) or f"/usr/bin/{name}")
    return folder


def add_program(folder: Path, name: str, body: str) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_text(f"#!{shutil.which('bash')}\n{body}\n")
    (folder / name).chmod(0o755)


def run_system(path: Path, *words: str, tier: str = "") -> subprocess.CompletedProcess[str]:
    env = {"PATH": str(path), "TIER": tier}
    argv = ["bash", str(TOP / ".ci" / "system"), *words]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)


def test_a_user_who_may_not_install_gets_one_line_to_run(bare_path: Path) -> None:
    add_program(bare_path, "id", "echo 1000")
    add_program(bare_path, "sudo", "exit 1")
    add_program(bare_path, "apt-get", "echo must not run >&2; exit 1")
    done = run_system(bare_path)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "sudo apt-get install gcc g++ binutils make git openssl python3 python3-venv" in line


def test_a_machine_without_apt_is_told_what_it_lacks(bare_path: Path) -> None:
    done = run_system(bare_path)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "lacks gcc g++ binutils make" in line


def test_more_is_needed_for_the_test_hosts_and_for_everything(bare_path: Path) -> None:
    simple, hosts, everything = (
        set(run_system(bare_path, *words, tier=tier).stderr.split(":")[1].split())
        for words, tier in (((), ""), (("bed",), ""), ((), "ci"))
    )
    assert hosts - simple >= {"gpg", "systemd-container", "nftables", "qemu-system-x86", "zstd"}
    assert everything - hosts >= {"fsverity", "vagrant"}
    assert simple < hosts < everything


def test_only_what_is_missing_is_installed_and_package_lists_are_fetched_when_they_are_needed(
    bare_path: Path, tmp_path: Path
) -> None:
    for name in ("gcc", "readelf", "make", "git", "openssl", "python3", "mmdebstrap"):
        add_program(bare_path, name, "exit 0")
    add_program(bare_path, "id", "echo 0")
    lists = tmp_path / "lists"
    # Like apt-get with empty lists: nothing can be installed before an update.
    add_program(
        bare_path,
        "apt-get",
        f'echo "$@" >>{tmp_path}/calls; [[ "$*" == *update* ]] && : >{lists} && exit 0; [ -e {lists} ]',
    )
    done = run_system(bare_path)
    assert (done.returncode, done.stdout) == (0, "")
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[-1] for call in calls] == ["g++", "update", "g++"]
    assert "installing g++ (" in done.stderr


def test_a_failed_installation_shows_what_apt_said(bare_path: Path) -> None:
    add_program(bare_path, "id", "echo 0")
    add_program(bare_path, "apt-get", "echo E: the mirror is gone; exit 100")
    done = run_system(bare_path)
    assert done.returncode == 1
    assert "E: the mirror is gone" in done.stderr


def test_nothing_is_said_or_done_when_nothing_is_missing(bare_path: Path) -> None:
    for name in ("gcc", "g++", "readelf", "make", "git", "openssl", "python3", "mmdebstrap"):
        add_program(bare_path, name, "exit 0")
    add_program(bare_path, "apt-get", "echo must not run >&2; exit 1")
    assert (run_system(bare_path).returncode, run_system(bare_path).stderr) == (0, "")


def test_an_old_python_is_refused_in_one_line(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    (copy / ".ci").mkdir(parents=True)
    for name in (".ci/setup", "requirements-dev.lock", "pyproject.toml"):
        shutil.copy(TOP / name, copy / name)
    add_program(tmp_path, "python3.9", '[ "$1" = -V ] && echo "Python 3.9.2" && exit 0; exit 1')
    done = subprocess.run(
        ["bash", str(copy / ".ci" / "setup")],
        env={**os.environ, "PYTHON": str(tmp_path / "python3.9")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "Python 3.9.2; Python 3.10 or newer is needed" in line
    assert not (copy / ".venv").exists()


def whole_run(folder: Path, makefile: str) -> subprocess.CompletedProcess[str]:
    (folder / ".ci").mkdir()
    shutil.copy(TOP / ".ci" / "run", folder / ".ci" / "run")
    (folder / "Makefile").write_text(makefile)
    env = {**os.environ, "MAKEFLAGS": "", "TIER": "", "TMPDIR": str(folder)}
    return subprocess.run(["bash", str(folder / ".ci" / "run")], env=env, capture_output=True, text=True, timeout=60)


def is_running(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_whole_run_does_every_stage_and_the_tests_last(tmp_path: Path) -> None:
    done = whole_run(tmp_path, "system setup lint runtime bed oracles test:\n\t@echo did $@ $(TIER)\n")
    assert (done.returncode, done.stderr) == (0, "")
    did = [line.strip() for line in done.stdout.splitlines() if line.startswith("did")]
    assert [did[0], did[1], did[-1]] == ["did system ci", "did setup", "did test ci"]
    assert sorted(did[2:-1]) == ["did bed", "did lint", "did oracles", "did runtime"]
    assert "== bed took 0." in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == [".ci", "Makefile"]


def test_the_whole_run_stops_at_the_first_stage_that_fails_with_its_exit_code_and_ends_the_others(
    tmp_path: Path,
) -> None:
    makefile = (
        "system setup test:\n\t@echo did $@\n"
        "lint:\n\t@while [ ! -e pid ]; do sleep 0.05; done; echo what is wrong; exit 1\n"
        "runtime bed oracles:\n\t@echo $$$$ >>pid; sleep 1000\n"
    )
    done = whole_run(tmp_path, makefile)
    assert done.returncode == 2  # make's own code for a target that failed
    assert [line for line in done.stdout.splitlines() if line.startswith("did")] == ["did system", "did setup"]
    assert "what is wrong" in done.stdout
    assert "lint failed with exit code 2" in done.stderr
    until = time.monotonic() + 10  # to die of a signal takes a moment, and whoever inherits the dead reaps them later
    while running := [pid for pid in (tmp_path / "pid").read_text().split() if is_running(pid)]:
        assert time.monotonic() < until, running
        time.sleep(0.05)


@pytest.mark.ci
def test_a_test_run_without_tests_fails() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "-o", "runtime", "test"],
        cwd=TOP,
        env={
            # What pytest tells its workers would make the inner pytest one of them.
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
            "MAKEFLAGS": "",
            "TIER": "ci",
            "PYTEST_ADDOPTS": "-k no_such_test_anywhere -p no:cacheprovider tests/test_newcomer.py",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert "Error 5" in done.stderr
