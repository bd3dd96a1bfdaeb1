"""Test hosts that boot a real systemd in systemd-nspawn, on a machine whose own process 1 may be anything.

Owns the life of one such host: its disk (a file system in memory over a tree that is never written), its network
(`network.Network`: every attempt to leave is counted), its processes. It needs root.

Rules:

- Everything is made inside a cell: when the tests end, even by SIGKILL, the kernel takes processes and mounts away.
- `kill` is a crash. What was written stays written, so it proves nothing about a power cut.
- The kernel is the machine's own: MemoryMax, TasksMax and IPAddressDeny of units are accepted and not enforced.
- A pulled stick is gone from its folder; a file of it that is open stays readable. Errors in the middle of a read are
  for the guest.
"""

from __future__ import annotations

import itertools
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.bed.cache import bed_folder
from tests.bed.cell import PATH, Cell, children
from tests.bed.files_digest import Known, files_below, read_patterns
from tests.bed.host import BedError, CommandError, Finished, Stick
from tests.bed.network import Attempts, Network
from tests.bed.transfer import receive, send

BOOT_S = 60
STOP_S = 30
DISK = "4g"
ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
POWER_OFF = signal.SIGRTMIN + 4  # to systemd as process 1
STICK_OPTIONS = "nosuid,nodev,noexec"
_numbers = itertools.count(1)
# Hosts share the files of their trees, which are older than this process.
_known = Known(time.time_ns())

# Runs as process 1 of the host's cell. The machine may show version 1 of cgroups; systemd 256 insists on version 2.
PREPARE = """
mount -t tmpfs -o size={disk},mode=0755 bed {folder}
cd {folder}
mkdir upper work root sticks plugged
mount -t overlay -o lowerdir={tree},upperdir=upper,workdir=work overlay root
mount --bind plugged plugged
mount --make-shared plugged
mount -t tmpfs bed /run
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir /sys/fs/cgroup/{group}
"""
FINISH = """
kill -KILL -1
for wait in 1 2 3 4 5 6 7 8 9 10; do
    find /sys/fs/cgroup/{group} -depth -type d -exec rmdir {{}} + 2>/dev/null
    [ -d /sys/fs/cgroup/{group} ] || exit 0
    sleep 0.1
done
"""
# In the host's control group from the first instant on.
START = 'echo 0 >/sys/fs/cgroup/"$0"/cgroup.procs && exec "$@"'


class NspawnHost:
    """A fresh host, booted. Use it in a `with` block.

    Args:
        tree: its root file system; never written.
        network: made by somebody else, who closes it; by default the host has its own, with a counted uplink.
        disk: the most that may be written to its disk, as tmpfs says it (`64m`).

    Raises:
        BedError: it did not boot; the error ends with its console.
    """

    def __init__(self, tree: Path, *, network: Network | None = None, disk: str = DISK) -> None:
        self.name = f"bed-{os.getpid()}-{next(_numbers)}"
        self.boot_s = 0.0
        """How long the last boot took."""
        self.network = network or Network()
        self._owns_network = network is None
        self._folder = bed_folder() / "mounts"
        self._folder.mkdir(exist_ok=True)
        self._console = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed with the host)
        self._nspawn: subprocess.Popen[bytes] | None = None
        words = {"disk": disk, "folder": self._folder, "tree": tree, "group": self.name}
        quoted = {key: shlex.quote(str(value)) for key, value in words.items()}
        try:
            self.cell = Cell(["mount", "pid"], prepare=PREPARE.format(**quoted), finish=FINISH.format(**quoted))
        except BaseException:
            self._close_network()
            raise
        try:
            self.boot()
        except BaseException:
            self.close()
            raise

    @property
    def leader(self) -> int:
        """The host's process 1, by the number it has on this machine."""
        # Looked up each time: a host that reboots itself gets another one.
        if found := self._find_leader():
            return found
        raise BedError(f"{self.name} does not run")

    def boot(self) -> None:
        """Start a host that does not run, and return when its services are up. The disk is what it was."""
        if self._nspawn is not None and self._nspawn.poll() is None:
            raise BedError(f"{self.name} runs already")
        started = time.monotonic()
        self._nspawn = subprocess.Popen(
            self._argv(),
            env={"PATH": PATH, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=self._console,
            start_new_session=True,
        )
        self._await_services(started + BOOT_S)
        self.boot_s = time.monotonic() - started

    def _argv(self) -> list[str]:
        return [
            # All namespaces are opened before the first is entered: the network's holder is invisible from inside.
            *self.cell.enter(),
            f"--net=/proc/{self.network.cell.pid}/ns/net",
            *("--", "sh", "-c", START, self.name),
            *("systemd-nspawn", "--quiet", "--boot", f"--directory={self._folder}/root", f"--machine={self.name}"),
            *("--register=no", "--keep-unit", "--kill-signal=SIGRTMIN+3", "--link-journal=no"),
            *("--console=read-only", "--resolv-conf=off", "--timezone=off"),
            # A machine's own root may load rules of nftables.
            "--capability=CAP_NET_ADMIN",
            *("--network-namespace-path=/proc/self/ns/net", f"--bind={self._folder}/plugged:/media"),
        ]

    def _await_services(self, end: float) -> None:
        state = "nothing"
        while time.monotonic() < end:
            assert self._nspawn is not None
            if self._nspawn.poll() is not None:
                break
            if self._find_leader():
                state = self.run(
                    ["systemctl", "is-system-running", "--wait"], check=False, timeout_s=BOOT_S
                ).out.strip()
                if state == "running":
                    return
                if state == "degraded":
                    state += ": " + self.run(["systemctl", "--failed", "--plain", "--no-legend"]).out
                    break
            time.sleep(0.03)
        self._console.seek(0)
        raise BedError(f"{self.name} did not boot ({state}); its console:\n{self._console.read()[-3000:]}")

    def _find_leader(self) -> int:
        # nsenter forks to enter a process namespace: nsenter, nspawn, the host's process 1.
        if self._nspawn is None or self._nspawn.poll() is not None:
            return 0
        for nspawn in children(self._nspawn.pid):
            for child in children(nspawn):
                if _name(child) in ("systemd", "init"):
                    return child
        return 0

    def _enter(self) -> list[str]:
        # What runs inside dies with the process that the tests see, so that nothing outlives a timeout.
        kinds = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root")
        return ["nsenter", f"--target={self.leader}", *kinds, "--", "setpriv", "--pdeathsig", "KILL"]

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 120,
    ) -> Finished:
        """Run a command as root in /root with a small fixed environment: see `host.Host.run`."""
        words = [f"{key}={value}" for key, value in {**ENV, **(env or {})}.items()]
        # The inner limit ends the whole process group, so that no grandchild keeps the pipe open.
        limit = ["timeout", "--signal=KILL", f"{timeout_s:.3f}"]
        started = time.monotonic()
        ended = subprocess.run(
            [*self._enter(), *limit, "env", "--ignore-environment", "--chdir=/root", *words, *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={"PATH": PATH},
            timeout=timeout_s + 10,
        )
        if ended.returncode in (137, -signal.SIGKILL) and time.monotonic() - started >= timeout_s:
            raise subprocess.TimeoutExpired(list(argv), timeout_s, ended.stdout, ended.stderr)
        finished = Finished(ended.returncode, ended.stdout, ended.stderr)
        if check and finished.code != 0:
            raise CommandError(argv, finished)
        return finished

    def put(self, local: Path, remote: str) -> None:
        """Copy a file or a folder onto the host, modes kept, owner root. Missing folders are made."""
        send(self._enter_plain(), local, remote)

    def get(self, remote: str, local: Path) -> None:
        """Copy a file or a folder from the host."""
        receive(self._enter_plain(), remote, local)

    def _enter_plain(self) -> list[str]:
        return [*self._enter(), "env", "--ignore-environment", f"PATH={ENV['PATH']}"]

    def plug(self, stick: Stick) -> str:
        """Show a stick's files in a folder of the host, mounted as an operator does."""
        flags = f"{STICK_OPTIONS},{'ro' if stick.is_read_only else 'rw'}"
        # The flags must stand before the mount reaches the host: a later change of them would not.
        self._in_cell(
            f"mkdir -p sticks/{stick.name} plugged/{stick.name}; "
            f"mount --bind {shlex.quote(str(stick.folder))} sticks/{stick.name}; "
            f"mount -o remount,bind,{flags} sticks/{stick.name}; "
            f"mount --bind sticks/{stick.name} plugged/{stick.name}; "
            f"umount sticks/{stick.name}"
        )
        return f"/media/{stick.name}"

    def yank(self) -> None:
        """Pull every stick without unmounting."""
        self._in_cell("for stick in plugged/*; do [ -d $stick ] || break; umount --lazy $stick; rmdir $stick; done")

    def _in_cell(self, script: str) -> None:
        argv = [*self.cell.enter(), "--", "sh", "-ec", f"cd {shlex.quote(str(self._folder))}; {script}"]
        ended = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env={"PATH": PATH})
        if ended.returncode != 0:
            raise BedError(f"{self.name}: {ended.stderr.strip()}")

    def kill(self) -> None:
        """End the host at this instant: a crash. Its disk stays."""
        os.kill(self.leader, signal.SIGKILL)
        self._await_end()

    def stop(self) -> None:
        """Shut the host down in order. Its disk stays: `stop` and `boot` are a reboot."""
        os.kill(self.leader, POWER_OFF)
        self._await_end()

    def _await_end(self) -> None:
        assert self._nspawn is not None
        try:
            self._nspawn.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise BedError(f"{self.name} did not end within {STOP_S} s") from None

    def files(self) -> dict[str, str]:
        """Each path on the host's disk, whether it runs or not: see `files_digest.files_below`."""
        return files_below(str(self.cell.path(self._folder / "root")), read_patterns(), _known)

    def attempts(self) -> Attempts:
        """What tried to leave the host's network, over all its boots."""
        return self.network.attempts()

    def namespaces(self) -> frozenset[str]:
        """The kernel's names of all namespaces that the host lives in."""
        kinds = ("mnt", "net", "pid", "uts", "ipc", "cgroup")
        own = frozenset(os.readlink(f"/proc/{self.leader}/ns/{kind}") for kind in kinds)
        return own | self.cell.namespaces | self.network.cell.namespaces

    def close(self) -> None:
        """End the host and forget its disk. May be called twice."""
        self.cell.close()
        if self._nspawn is not None:
            self._nspawn.wait(STOP_S)
        self._console.close()
        self._close_network()

    def _close_network(self) -> None:
        if self._owns_network:
            self.network.close()

    def __enter__(self) -> NspawnHost:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
