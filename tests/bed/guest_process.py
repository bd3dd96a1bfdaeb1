"""One QEMU process and the two conversations with it: the agent in the guest, and QEMU's monitor.

Owns the process and both sockets. It must never end a process that it did not start, nor decide what a test means.
"""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

from tests.bed.guest_agent import Agent
from tests.bed.guest_machine import Machine, Wiring
from tests.bed.host import BedError
from tests.bed.qmp import Qmp

BOOT_TIMEOUT_S = 240.0
RESUME_TIMEOUT_S = 60.0
MIGRATION_BYTES_PER_S = 1 << 34


class GuestProcess:
    """A running machine.

    Args:
        machine: its shape.
        folder: holds `kernel` and `initrd`.
        disk: its qcow2 image, which no other process uses.
        state: the frozen memory to go on from, or None to boot.

    Raises:
        BedError: QEMU or the guest did not come up; with what they said last.
    """

    def __init__(self, machine: Machine, folder: Path, disk: Path, state: Path | None = None) -> None:
        self._console = disk.with_suffix(".console")
        self._log = disk.with_suffix(".log")
        agent, agent_inside = socket.socketpair()
        monitor, monitor_inside = socket.socketpair()
        inside = (agent_inside.fileno(), monitor_inside.fileno())
        wiring = Wiring(disk, folder / "kernel", folder / "initrd", self._console, *inside)
        argv = machine.argv(wiring) + (["-incoming", f"exec:zstd -dcq '{state}'"] if state else [])
        with agent_inside, monitor_inside, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=inside, start_new_session=True
            )
        self.agent = Agent(agent)
        try:
            self.qmp = Qmp(monitor)
            if state:
                self._go_on()
            self.agent.wait(RESUME_TIMEOUT_S if state else BOOT_TIMEOUT_S)
            if state:
                self.agent.wake(time.time())
        except (OSError, BedError) as error:
            self.kill()
            monitor.close()
            raise BedError(
                f"the guest did not come up: {error or type(error).__name__}\n{self._last_words()}"
            ) from error

    @property
    def pid(self) -> int:
        """QEMU's process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the machine has power."""
        return self._process.poll() is None

    def wait(self, timeout_s: float) -> bool:
        """Wait for the machine to switch itself off; False when it did not."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Cut the power. May be called twice."""
        if self.is_running:
            self._process.kill()
        self._process.wait()
        self.agent.close()
        if hasattr(self, "qmp"):
            self.qmp.close()

    def save(self, state: Path) -> None:
        """Stop the machine and write its memory to a file, zstd-compressed. Nothing may be plugged in."""
        self.qmp.execute("stop")
        self.qmp.execute("migrate-set-parameters", max_bandwidth=MIGRATION_BYTES_PER_S)
        self.qmp.execute("migrate", uri=f"exec:zstd -1 -q -T2 > '{state}'")
        while (status := self.qmp.execute("query-migrate")["status"]) not in ("completed", "failed"):
            time.sleep(0.1)
        if status == "failed":
            raise BedError("the guest's memory could not be saved")

    def _go_on(self) -> None:
        deadline = time.monotonic() + RESUME_TIMEOUT_S
        while (status := self.qmp.execute("query-status")["status"]) != "paused":
            if status != "inmigrate" or time.monotonic() > deadline:
                raise BedError(f"the frozen guest did not load: it is {status}")
            time.sleep(0.02)
        self.qmp.execute("cont")

    def _last_words(self) -> str:
        files = (self._log, self._console)
        return "\n".join(file.read_text(errors="replace")[-2000:] for file in files if file.exists())
