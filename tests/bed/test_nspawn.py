"""A systemd-nspawn host is a real host, fresh each time, from which nothing leaves uncounted."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bed.canaries import CANARIES, LOOKUP
from tests.bed.files_digest import differences
from tests.bed.fixtures import tree_folder
from tests.bed.host import BedError, FolderStick
from tests.bed.network import NotIsolatedError, require_isolated
from tests.bed.nspawn import NspawnHost
from tests.bed.open_network import ASK, OpenNetwork, Outside
from tests.bed.trees import DEBIAN_12

NewHost = Callable[[], NspawnHost]

pytestmark = pytest.mark.ci


@pytest.fixture(scope="module")
def shared_host() -> Iterator[NspawnHost]:
    """One host for the tests that do not depend on its disk."""
    with NspawnHost(tree_folder(DEBIAN_12)) as made:
        yield made
        assert made.attempts().total == 0


HARDENED = (
    *("--property=DynamicUser=yes", "--property=PrivateNetwork=yes", "--property=ProtectSystem=strict"),
    *("--property=SystemCallFilter=@system-service", "--property=MemoryDenyWriteExecute=yes"),
)


@pytest.mark.parametrize(
    ("nspawn_host", "release"), [("debian-12", "12"), ("debian-13", "13")], indirect=["nspawn_host"]
)
def test_host_boots_a_whole_systemd(nspawn_host: NspawnHost, release: str) -> None:
    assert nspawn_host.run(["cat", "/proc/1/comm"]).out == "systemd\n"
    assert nspawn_host.run(["systemctl", "is-system-running"]).out == "running\n"
    assert f'VERSION_ID="{release}"' in nspawn_host.run(["cat", "/etc/os-release"]).out
    assert nspawn_host.run(["hostname"]).out.strip() == nspawn_host.name
    assert nspawn_host.boot_s > 0


def test_host_runs_hardened_units_and_keeps_their_journal(shared_host: NspawnHost) -> None:
    unit = [
        "systemd-run",
        "--quiet",
        "--wait",
        "--unit=probe",
        *HARDENED,
        "sh",
        "-c",
        "echo user $(id -u); cat /proc/net/dev",
    ]
    shared_host.run(unit)
    # The journal's own process may be a moment behind.
    shared_host.run(["journalctl", "--sync"])
    journal = shared_host.run(["journalctl", "--unit=probe", "--output=cat"]).out
    # systemd takes dynamic users from this range.
    assert re.search(r"^user 6[1-5]\d{3}$", journal, re.MULTILINE)
    assert "lo:" in journal
    assert "eth0" not in journal


def test_host_has_no_interface_but_loopback_no_resolver_and_no_mirror(shared_host: NspawnHost) -> None:
    require_isolated(shared_host.leader, {"lo"})
    assert shared_host.run(["cat", "/etc/resolv.conf", "/etc/apt/sources.list"]).out == ""
    assert shared_host.run(["sh", "-c", "cat /etc/apt/sources.list.d/* 2>/dev/null || true"]).out == ""


def test_every_attempt_inside_a_host_is_refused_and_counted(new_nspawn_host: NewHost) -> None:
    host = new_nspawn_host()
    for canary in CANARIES:
        before = host.attempts()
        host.run(canary.argv, check=False, timeout_s=60)
        after = host.attempts()
        assert getattr(after, canary.kind) > getattr(before, canary.kind), canary.name
        assert canary.address in {destination.address for destination in after.destinations}
    before = host.attempts()
    host.run(LOOKUP, check=False, timeout_s=120)
    assert host.attempts().dns > before.dns


def test_attempt_of_a_service_is_counted_and_root_on_the_host_cannot_clear_it(new_nspawn_host: NewHost) -> None:
    host = new_nspawn_host()
    host.run(["systemd-run", "--quiet", "--wait", *CANARIES[0].argv], check=False)
    host.run(["nft", "flush", "ruleset"])
    assert host.attempts().ipv4 == 1


def test_control_in_an_open_network_the_isolation_test_fails() -> None:
    folder = tree_folder(DEBIAN_12)
    with Outside() as outside, OpenNetwork(outside) as network, NspawnHost(folder, network=network) as host:
        assert host.run(["python3", "-c", ASK]).out == "reached\n"
        with pytest.raises(NotIsolatedError, match="way out: wan0"):
            require_isolated(host.leader, {"lo"})
        with pytest.raises(NotIsolatedError, match="counters are gone"):
            host.attempts()


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_only_an_orderly_end_lets_services_finish(nspawn_host: NspawnHost, end: str) -> None:
    stopping = "--property=ExecStop=touch /root/finished"
    nspawn_host.run(["systemd-run", "--quiet", stopping, "sleep", "1000"])
    getattr(nspawn_host, end)()
    assert ("/root/finished" in nspawn_host.files()) == (end == "stop")


def test_crash_ends_the_host_and_its_disk_stays(nspawn_host: NspawnHost) -> None:
    nspawn_host.run(["sh", "-c", "echo kept >/root/note; echo gone >/run/note"])
    nspawn_host.kill()
    with pytest.raises(BedError, match="does not run"):
        nspawn_host.run(["true"])
    nspawn_host.boot()
    assert nspawn_host.run(["cat", "/root/note"]).out == "kept\n"
    assert nspawn_host.run(["test", "-e", "/run/note"], check=False).code == 1


def test_reboot_runs_what_was_enabled(nspawn_host: NspawnHost, tmp_path: Path) -> None:
    unit = tmp_path / "greeting.service"
    unit.write_text("[Service]\nType=oneshot\nExecStart=touch /run/greeted\n[Install]\nWantedBy=multi-user.target\n")
    nspawn_host.put(unit, "/etc/systemd/system/greeting.service")
    nspawn_host.run(["systemctl", "--quiet", "enable", "greeting"])
    nspawn_host.stop()
    nspawn_host.boot()
    nspawn_host.run(["test", "-e", "/run/greeted"])


def test_command_that_takes_too_long_is_killed_with_its_children(shared_host: NspawnHost) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        shared_host.run(["sh", "-c", "sleep 4321 & sleep 4321"], timeout_s=0.5)
    assert shared_host.run(["pgrep", "-f", "sleep 432[1]"], check=False).out == ""


def test_files_keep_their_modes_both_ways_and_links_stay_on_the_host(shared_host: NspawnHost, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "tool").write_text("#!/bin/sh\n")
    (folder / "tool").chmod(0o750)
    (folder / "link").symlink_to("tool")
    trap = tmp_path / "trap"
    trap.mkdir()
    # Here this link leads to a folder of the tests; on the host to one of its own.
    shared_host.run(["ln", "-s", str(trap), "/srv/outside"])
    shared_host.run(["mkdir", "-p", str(trap)])
    shared_host.put(folder, "/srv/outside/deep/folder")
    assert list(trap.iterdir()) == []
    assert shared_host.run(["stat", "-c", "%a %U", "/srv/outside/deep/folder/tool"]).out == "750 root\n"
    shared_host.get("/srv/outside/deep/folder", tmp_path / "back")
    assert (tmp_path / "back" / "tool").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "back" / "link").readlink() == Path("tool")


def test_plugged_stick_is_mounted_as_an_operator_does(shared_host: NspawnHost, tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "run.sh").chmod(0o755)
    place = shared_host.plug(FolderStick("stick-1", tmp_path, is_read_only=True))
    assert shared_host.run([f"{place}/run.sh"], check=False).code == 126
    refused = shared_host.run(["touch", f"{place}/new"], check=False)
    assert "Read-only file system" in refused.err
    options = set(shared_host.run(["findmnt", "-no", "OPTIONS", place]).out.strip().split(","))
    assert {"ro", "nosuid", "nodev", "noexec"} <= options


def test_pulled_stick_is_gone_and_may_come_back(shared_host: NspawnHost, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("note")
    stick = FolderStick("stick-2", tmp_path)
    place = shared_host.plug(stick)
    shared_host.run(["sh", "-c", f"echo written >{place}/answer"])
    shared_host.yank()
    assert shared_host.run(["test", "-e", f"{place}/note"], check=False).code == 1
    assert (tmp_path / "answer").read_text() == "written\n"
    assert shared_host.plug(stick) == place
    assert shared_host.run(["cat", f"{place}/note"]).out == "note"


def test_two_fresh_hosts_have_the_same_files(new_nspawn_host: NewHost) -> None:
    first, second = new_nspawn_host().files(), new_nspawn_host().files()
    assert len(first) > 5000
    assert differences(first, second) == []


def test_boot_and_reboot_change_no_file_that_counts(nspawn_host: NspawnHost) -> None:
    before = nspawn_host.files()
    nspawn_host.stop()
    nspawn_host.boot()
    assert differences(before, nspawn_host.files()) == []


def test_files_tell_every_change_also_of_a_host_that_is_down(nspawn_host: NspawnHost) -> None:
    nspawn_host.run(["sh", "-c", "echo a >/srv/a; echo b >/srv/b; echo c >/srv/c; ln -s a /srv/l"])
    before = nspawn_host.files()
    change = "echo x >/srv/a; chmod 600 /srv/b; chown 7 /srv/c; ln -sfn b /srv/l; mkdir /srv/d; rm /etc/issue"
    nspawn_host.run(["sh", "-c", change])
    nspawn_host.kill()
    expected = ["- /etc/issue", "~ /srv/a", "~ /srv/b", "~ /srv/c", "+ /srv/d", "~ /srv/l"]
    assert differences(before, nspawn_host.files()) == expected


def test_full_disk_is_full() -> None:
    with NspawnHost(tree_folder(DEBIAN_12), disk="40m") as host:
        full = host.run(["dd", "if=/dev/zero", "of=/root/big", "bs=1M", "count=100"], check=False)
    assert "No space left on device" in full.err


def test_tree_that_does_not_boot_is_told_with_its_console(tmp_path: Path) -> None:
    tree_folder(DEBIAN_12)
    (tmp_path / "usr").mkdir()
    with pytest.raises(BedError, match="did not boot"):
        NspawnHost(tmp_path)
