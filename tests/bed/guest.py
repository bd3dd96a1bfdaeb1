"""A guest: a whole machine with its own kernel, USB sockets, and no network card (`Host`).

Owns one disk, the process that runs on it, and the sticks in it. It must never be given a network card: the control of
that test plugs one in by itself.

Rules:

- `kill` is a power cut: what the guest's kernel had not written to its disk is lost.
- Sticks stay in while the power is off, as in a real machine; they are not mounted after `boot`.
- `close` ends the process that was started here and no other, and removes the disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tests.bed.files_digest import VOLATILE
from tests.bed.files_digest import __file__ as LIST_FILES
from tests.bed.guest_frozen import Frozen
from tests.bed.guest_machine import make_overlay
from tests.bed.guest_process import GuestProcess
from tests.bed.host import BedError, CommandError, Finished, Stick
from tests.bed.tools import call
from tests.bed.usb import UsbStick, copy_out, make_stick
from tests.bed.usb_port import UsbPort

STOP_TIMEOUT_S = 90.0
DEVICE_TIMEOUT_S = 20
MOUNT_OPTIONS = "nosuid,nodev,noexec"
_PREFIX = "bed-guest-"


class Guest:
    """A fresh host, resumed from a frozen one.

    Args:
        frozen: what it goes on from.
    """

    def __init__(self, frozen: Frozen) -> None:
        self.frozen = frozen
        _sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self._disk = self._folder / "disk"
        self._process: GuestProcess | None = None
        self._sticks: dict[str, UsbStick] = {}
        self._folders: dict[str, Path] = {}
        try:
            make_overlay(frozen.disk.resolve(), "qcow2", self._disk)
            self._process = GuestProcess(frozen.machine, frozen.image.folder, self._disk, frozen.state)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The guest's name in messages."""
        return self._folder.name

    @property
    def process(self) -> GuestProcess:
        """The running machine.

        Raises:
            BedError: it has no power.
        """
        if self._process is None or not self._process.is_running:
            raise BedError(f"{self.name} is switched off")
        return self._process

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 120,
    ) -> Finished:
        """See `Host.run`."""
        finished = self.process.agent.run(argv, env or {}, timeout_s)
        if check and finished.code:
            raise CommandError(argv, finished)
        return finished

    def put(self, local: Path, remote: str) -> None:
        """See `Host.put`."""
        if not local.is_dir():
            self.process.agent.put(local, remote)
            return
        archive, inside = self._folder / "put.tar", f"/var/tmp/{self.name}.tar"
        call(["tar", "-C", str(local), "--owner=root:0", "--group=root:0", "-cf", str(archive), "."])
        self.process.agent.put(archive, inside)
        archive.unlink()
        self.run(["mkdir", "-p", remote])
        self.run(["tar", "-C", remote, "-xpf", inside])
        self.run(["rm", inside])

    def get(self, remote: str, local: Path) -> None:
        """See `Host.get`."""
        if self.run(["test", "-d", remote], check=False).code:
            self.process.agent.get(remote, local)
            return
        archive, inside = self._folder / "get.tar", f"/var/tmp/{self.name}.tar"
        self.run(["tar", "-C", remote, "-cf", inside, "."])
        self.process.agent.get(inside, archive)
        self.run(["rm", inside])
        local.mkdir()
        call(["tar", "-C", str(local), "-xpf", str(archive)])
        archive.unlink()

    def plug(self, stick: Stick) -> str:
        """See `Host.plug`. What is no `UsbStick` becomes one; its folder has what was written to it after `yank`."""
        usb = stick if isinstance(stick, UsbStick) else self._as_usb(stick)
        self._sticks[usb.name] = usb
        UsbPort(self.process.qmp).insert(usb)
        return self.mount(usb)

    def mount(self, stick: UsbStick) -> str:
        """Mount a stick that is plugged in.

        Returns:
            The folder in the guest.
        """
        device = f"/dev/disk/by-id/usb-QEMU_QEMU_HARDDISK_{stick.serial}-0:0-part1"
        folder = f"/media/{stick.name}"
        options = f"{'ro' if stick.is_read_only else 'rw'},{MOUNT_OPTIONS}"
        self.run(["udevadm", "wait", f"--timeout={DEVICE_TIMEOUT_S}", device])
        # What is left of a stick that was yanked still lies there.
        self.run(["umount", "--quiet", "--lazy", folder], check=False)
        self.run(["mkdir", "-p", folder])
        self.run(["mount", "-o", options, device, folder])
        return folder

    def yank(self) -> None:
        """See `Host.yank`."""
        port = UsbPort(self.process.qmp)
        for name, usb in self._sticks.items():
            port.pull(usb)
            if name in self._folders and not usb.is_read_only:
                copy_out(usb.image, self._folders[name])
        self._sticks, self._folders = {}, {}

    def kill(self) -> None:
        """Cut the power at this instant."""
        if self._process is not None:
            self._process.kill()

    def boot(self) -> None:
        """See `Host.boot`. About 25 s under emulation."""
        if self._process is not None and self._process.is_running:
            raise BedError(f"{self.name} runs already")
        self.kill()
        self._process = GuestProcess(self.frozen.machine, self.frozen.image.folder, self._disk)
        port = UsbPort(self._process.qmp)
        for usb in self._sticks.values():
            port.insert(usb)
        state = self.run(["systemctl", "is-system-running", "--wait"], check=False).out.strip()
        if state not in ("running", "degraded"):
            raise BedError(f"{self.name} did not come up: it is {state!r}")

    def stop(self) -> None:
        """See `Host.stop`."""
        # It may be gone before it can say that it heard.
        with contextlib.suppress(ConnectionError):
            self.run(["systemctl", "poweroff", "--no-block"])
        if not self.process.wait(STOP_TIMEOUT_S):
            raise BedError(f"{self.name} did not switch itself off in {STOP_TIMEOUT_S:.0f} s")
        self.kill()

    def files(self) -> dict[str, str]:
        """See `Host.files`. The guest reads its own disk: half a minute under emulation, and it must run."""
        for name in (LIST_FILES, VOLATILE):
            self.put(Path(name), f"/run/bed/{Path(name).name}")
        argv = ["python3", "-I", f"/run/bed/{Path(LIST_FILES).name}", "/", f"/run/bed/{Path(VOLATILE).name}"]
        files: dict[str, str] = json.loads(self.run(argv, timeout_s=300).out)
        return files

    def close(self) -> None:
        """See `Host.close`."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _as_usb(self, stick: Stick) -> UsbStick:
        usb = make_stick(stick.name, self._folder / f"{stick.name}.img", stick.folder)
        self._folders[stick.name] = stick.folder
        return replace(usb, is_read_only=stick.is_read_only)


def _sweep() -> None:
    """Remove the disks of guests whose tests were killed; their processes ended with the tests."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)
