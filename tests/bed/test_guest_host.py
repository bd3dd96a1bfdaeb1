"""What scenarios ask of every host, on a guest."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.bed.files_digest import differences
from tests.bed.guest import Guest
from tests.bed.guest_agent import AgentError
from tests.bed.host import CommandError

pytestmark = pytest.mark.vm


def test_files_and_folders_go_in_and_come_out_with_their_modes(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "data").write_bytes(os.urandom(3_000_000))
    (tmp_path / "in" / "tool").write_text("#!/bin/sh\nexit 7\n")
    (tmp_path / "in" / "tool").chmod(0o750)
    guest.put(tmp_path / "in", "/srv/new/folder")
    assert guest.run(["stat", "-c", "%a %U", "/srv/new/folder/tool"]).out == "750 root\n"
    assert guest.run(["/srv/new/folder/tool"], check=False).code == 7
    guest.get("/srv/new/folder", tmp_path / "out")
    assert (tmp_path / "out" / "deep" / "data").read_bytes() == (tmp_path / "in" / "deep" / "data").read_bytes()
    guest.get("/srv/new/folder/tool", tmp_path / "tool")
    assert (tmp_path / "tool").read_text() == "#!/bin/sh\nexit 7\n"
    with pytest.raises(AgentError, match="FileNotFoundError"):
        guest.get("/srv/none", tmp_path / "none")


def test_command_that_fails_or_takes_too_long_is_told_apart_and_the_guest_goes_on(guest: Guest) -> None:
    with pytest.raises(CommandError, match="ended with 3\n"):
        guest.run(["sh", "-c", "exit 3"])
    assert guest.run(["/no/such/program"], check=False).code == 127
    with pytest.raises(subprocess.TimeoutExpired):
        guest.run(["sh", "-c", "sleep 300 & sleep 300"], timeout_s=1)
    assert guest.run(["printenv", "WORD"], env={"WORD": "said"}).out == "said\n"


def test_files_show_what_was_done_to_the_guest_and_nothing_else(guest: Guest) -> None:
    before = guest.files()
    guest.run(["sh", "-c", "echo changed > /etc/motd; chmod 600 /etc/hosts; mkdir /opt/new"])
    assert differences(before, guest.files()) == ["~ /etc/hosts", "~ /etc/motd", "+ /opt/new"]
