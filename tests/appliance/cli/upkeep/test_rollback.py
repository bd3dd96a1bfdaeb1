"""`appliance rollback` is the script of the host, with its output and its exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from appliance.host.change.rollback_program import rollback_program
from tests.appliance.host.change.shell_host import NEW, OLD, ShellHost
from tests.attacks.harness import command

RELEASE = "1.0.0-3f2a9c0b7d15"


@pytest.fixture
def host(tmp_path: Path) -> ShellHost:
    return ShellHost.make(tmp_path)


def appliance(host: ShellHost, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "appliance.cli.main", *words, "--prefix", str(host.prefix.root)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_command_goes_back_and_to_a_release_that_is_named(host: ShellHost) -> None:
    done = appliance(host, "rollback")
    assert (done.returncode, done.stdout) == (0, f"{OLD} serves; {NEW} served before\n"), done.stderr
    host.add_release(RELEASE)
    assert appliance(host, "rollback", "1.0.0-3f2a9c0b7d15").returncode == 0
    host.assert_whole(RELEASE)


def test_command_passes_on_the_exit_code_of_a_refusal(host: ShellHost) -> None:
    (host.release(OLD) / "REVOKED").touch()
    done = appliance(host, "rollback")
    assert (done.returncode, done.stdout) == (4, "")
    assert "error: 1.0.0-000000000001: revoked (release.revoked)" in done.stderr


def test_host_without_a_release_is_a_wrong_command(tmp_path: Path) -> None:
    answer = command("rollback", "--prefix", tmp_path / "empty")
    assert (answer.code, "release.none" in answer.talk) == (2, True)


def test_script_of_the_prefix_is_not_what_the_command_runs(host: ShellHost, tmp_path: Path) -> None:
    """It may belong to another user, and root may be the one who types this."""
    rollback_program(host.prefix).write_text(f"touch {tmp_path}/ran\n")
    assert appliance(host, "rollback").returncode == 0
    host.assert_whole(OLD)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("word", ["--return", "--recover", "--", ""])
def test_word_like_an_option_is_no_option_of_the_script(host: ShellHost, word: str) -> None:
    argv = [sys.executable, "-m", "appliance.cli.main", "rollback", "--prefix", str(host.prefix.root), "--", word]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    host.assert_whole(NEW)
