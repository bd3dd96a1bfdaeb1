"""Who listens on a port, who holds the lock of the package manager, and which packages are unfinished."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

import pytest

from appliance.host.preflight.surroundings import Process, read_surroundings

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
GROUP = "0::/system.slice/appliance-gateway.service\n"
STATUS = """Package: python3
Status: install ok installed
Architecture: amd64
Version: 3.11.2-1+b1
Description: a language
 Status: not a field of its own

Package: half
Status: install ok half-configured
Architecture: amd64
Version: 1.0

Package: torn
Status: install reinstreq half-installed
Architecture: all
Version: 2:1.0~rc1

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1
"""


def line(address: str, port: int, state: str, inode: int) -> str:
    return (
        f"   0: {address}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0 0 {inode} 1\n"
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files of a machine, where process 812 listens on two ports."""
    files = {
        "proc/net/tcp": HEAD + line("0100007F", 8443, "0A", 77) + line("0100007F", 9999, "01", 79),
        "proc/net/tcp6": HEAD + line("00000000000000000000000001000000", 80, "0A", 78),
        "proc/sys/kernel/hostname": "box\n",
        "proc/812/comm": "nginx\n",
        "proc/812/cgroup": GROUP,
        "var/lib/dpkg/status": STATUS,
        "var/lib/dpkg/lock-frontend": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "proc/812/fd").mkdir()
    (tmp_path / "proc/812/fd/3").symlink_to("socket:[77]")
    (tmp_path / "proc/812/fd/4").symlink_to("/dev/null")
    return tmp_path


def test_listeners_have_address_port_and_process_and_connections_are_none(root: Path) -> None:
    found = {(one.address, one.port): one.process for one in read_surroundings(root).listeners}
    assert found == {("127.0.0.1", 8443): Process(812, "nginx", GROUP.strip()), ("::1", 80): Process()}
    assert str(found["::1", 80]) == "a process of another user"


def test_states_of_packages_are_read_and_lines_inside_a_text_are_not(root: Path) -> None:
    found = read_surroundings(root)
    assert found.installed == (("python3", "amd64", "3.11.2-1+b1"),)
    assert (found.unfinished, found.broken) == (("half",), ("torn",))
    assert found.version_of("python3", "amd64") == "3.11.2-1+b1"
    assert found.version_of("python3", "arm64") == ""


def test_holder_of_the_lock_is_found_and_a_waiting_process_is_not(root: Path) -> None:
    status = (root / "var/lib/dpkg/lock-frontend").stat()
    at = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    locks = root / "proc/locks"
    locks.write_text(f"1: POSIX  ADVISORY  WRITE 5 08:01:1 0 EOF\n1: -> POSIX  ADVISORY  WRITE 900 {at} 0 EOF\n")
    assert read_surroundings(root).package_lock is None
    locks.write_text(f"2: POSIX  ADVISORY  WRITE 812 {at} 0 EOF\n")
    assert str(read_surroundings(root).package_lock) == "process 812 (nginx)"


def test_machine_without_these_files_has_nothing_around(tmp_path: Path) -> None:
    found = read_surroundings(tmp_path)
    assert (found.listeners, found.package_lock, found.installed) == ((), None, ())


def test_a_real_port_and_a_real_lock_are_seen(tmp_path: Path) -> None:
    dpkg = tmp_path / "var/lib/dpkg"
    dpkg.mkdir(parents=True)
    (tmp_path / "proc").symlink_to("/proc")
    with socket.socket() as server, (dpkg / "lock").open("w") as lock:
        server.bind(("127.0.0.1", 0))
        server.listen()
        fcntl.lockf(lock, fcntl.LOCK_EX)
        found = read_surroundings(tmp_path)
        port = server.getsockname()[1]
        assert [one.process.pid for one in found.listeners if one.port == port] == [os.getpid()]
        assert found.package_lock is not None
        # The kernel shows no owner outside this process's own namespace; then the id is 0.
        assert found.package_lock.pid in (os.getpid(), 0)
