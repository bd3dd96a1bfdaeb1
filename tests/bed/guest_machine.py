"""The virtual machine of a guest: its parts, its QEMU command line, and what must be equal to resume a frozen one.

Rules:

- There is no network device. `-nic none` stands in the command line of every guest.
- QEMU ends with the thread that started it, so an interrupted test leaves no guest behind.
- The guest's flushes reach this machine's kernel, not its disk. After QEMU was killed the guest's disk holds what had
  been flushed, and perhaps some of the rest: a power cut of the guest, which this machine survived.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.bed.host import BedError
from tests.bed.tools import call

QEMU = "qemu-system-x86_64"
PORT = "org.airgap.test"
USB_BUS = "xhci.0"
_KERNEL_ARGUMENTS = "root=/dev/vda rw console=ttyS0 quiet panic=1 net.ifnames=0 mitigations=off usb-storage.delay_use=0"


@dataclass(frozen=True)
class Machine:
    """The shape of a guest: what must be the same when it is frozen and when it is resumed.

    Args:
        accelerator: `kvm` or `tcg` (emulation).
        cpu: QEMU's name for the processor, with what is taken from it.
        memory_mib: RAM in MiB.
        cpus: processors.
    """

    accelerator: str
    cpu: str
    memory_mib: int = 3072
    cpus: int = 2

    def identity(self) -> dict[str, object]:
        """All that must be equal to resume, as JSON values."""
        parts = self.argv(Wiring(Path("disk"), Path("kernel"), Path("initrd"), Path("console"), 0, 0))
        # Emulation is the same everywhere; with KVM the guest sees this machine's processor.
        return {"qemu": qemu_version(), "argv": parts, "host_cpu": _cpu_flags() if self.accelerator == "kvm" else ""}

    def argv(self, wiring: Wiring) -> list[str]:
        """The command that runs this machine."""
        # One translation buffer of 512 MiB: llama.cpp and OpenSSL fill the default, which is then thrown away.
        accelerator = "tcg,thread=multi,tb-size=512" if self.accelerator == "tcg" else self.accelerator
        drive = f"if=none,id=root,file={wiring.disk},format=qcow2,discard=unmap,cache=unsafe"
        argv = ["setpriv", "--pdeathsig", "KILL", QEMU, "-name", "guest", "-machine", "q35"]
        argv += ["-accel", accelerator, "-cpu", self.cpu, "-smp", str(self.cpus), "-m", str(self.memory_mib)]
        argv += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"]
        argv += ["-kernel", str(wiring.kernel), "-initrd", str(wiring.initrd), "-append", _KERNEL_ARGUMENTS]
        argv += ["-drive", drive, "-device", "virtio-blk-pci,drive=root"]
        argv += ["-device", "qemu-xhci,id=xhci", "-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]
        argv += ["-chardev", f"socket,id=agent,fd={wiring.agent_fd}"]
        argv += ["-device", f"virtserialport,chardev=agent,name={PORT}"]
        argv += ["-chardev", f"socket,id=qmp,fd={wiring.qmp_fd}", "-mon", "chardev=qmp,mode=control"]
        argv += ["-chardev", f"file,id=console,path={wiring.console}", "-serial", "chardev:console"]
        return argv


@dataclass(frozen=True)
class Wiring:
    """What connects one running machine with this one.

    Args:
        disk: qcow2 image of the root file system, written to.
        kernel: and `initrd`: of the guest's image.
        console: file that takes what the guest's kernel says.
        agent_fd: connected socket, inherited by QEMU.
        qmp_fd: the same, for QEMU's monitor.
    """

    disk: Path
    kernel: Path
    initrd: Path
    console: Path
    agent_fd: int
    qmp_fd: int


def default_machine() -> Machine:
    """The machine that tests use where none asks for another."""
    if has_kvm():
        return Machine("kvm", "host")
    # Emulated AVX2 is slow: OpenSSL hashes 3 times faster with what it has for SSSE3. A fifth level of page tables, and
    # guards that a kernel switches at every copy from a program, take an emulator another tenth of its time.
    vectors, kernel = "-avx,-avx2", "-la57,-smap,-smep,-umip,-pku"
    return Machine("tcg", f"max,{vectors},{kernel}")


def has_kvm() -> bool:
    """Whether hardware virtualisation works for a stock kernel.

    A device that opens is no proof: nested machines without VMX or SVM offer one too, and a stock kernel hangs there.
    """
    flags = _cpu_flags().split()
    return os.access("/dev/kvm", os.R_OK | os.W_OK) and ("vmx" in flags or "svm" in flags)


@cache
def qemu_version() -> str:
    """What QEMU calls itself, the distribution's revision included.

    Raises:
        BedError: there is no QEMU here.
    """
    try:
        done = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BedError(f"{QEMU} does not run: {error}") from error
    return done.stdout.splitlines()[0]


def make_overlay(base: Path, base_format: str, overlay: Path) -> None:
    """Make an empty qcow2 image on top of another, which is never written to.

    Args:
        base: relative to the overlay's folder, or absolute.
        base_format: `raw` or `qcow2`.
        overlay: made; 200 kB at first.
    """
    call(["qemu-img", "create", "-q", "-f", "qcow2", "-F", base_format, "-b", str(base), str(overlay)])


def _cpu_flags() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return line.partition(":")[2].strip()
    return ""
