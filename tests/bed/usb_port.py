"""The USB socket of a running guest: sticks go in, and are pulled out whatever the guest is doing with them."""

from __future__ import annotations

import time

from tests.bed.guest_machine import USB_BUS
from tests.bed.qmp import Qmp, QmpError
from tests.bed.usb import UsbStick

RELEASE_TIMEOUT_S = 10.0


class UsbPort:
    """All sockets of one guest.

    Args:
        qmp: the monitor of its QEMU.
    """

    def __init__(self, qmp: Qmp) -> None:
        self._qmp = qmp

    def insert(self, stick: UsbStick) -> None:
        """Put a stick in. Its write protection and its speed are the stick's own."""
        name, protected = stick.name, stick.is_read_only
        file = {"driver": "file", "filename": str(stick.image.resolve()), "read-only": protected}
        self._qmp.execute("blockdev-add", driver="raw", node_name=name, read_only=protected, file=file)
        if stick.bytes_per_s:
            limits = {"bps-total": stick.bytes_per_s}
            self._qmp.execute("object-add", qom_type="throttle-group", id=f"{name}-limit", limits=limits)
            self._qmp.execute(
                "blockdev-add", driver="throttle", node_name=f"{name}-slow", throttle_group=f"{name}-limit", file=name
            )
        drive = f"{name}-slow" if stick.bytes_per_s else name
        self._qmp.execute(
            "device_add", driver="usb-storage", id=f"{name}-stick", bus=USB_BUS, drive=drive, removable=True,
            serial=stick.serial,
        )  # fmt: skip

    def pull(self, stick: UsbStick) -> None:
        """Pull a stick out, and let go of its image."""
        self._qmp.execute("device_del", id=f"{stick.name}-stick")
        self._qmp.wait_for("DEVICE_DELETED", RELEASE_TIMEOUT_S, device=f"{stick.name}-stick")
        if stick.bytes_per_s:
            self._release(f"{stick.name}-slow")
            self._qmp.execute("object-del", id=f"{stick.name}-limit")
        self._release(stick.name)

    def _release(self, node: str) -> None:
        deadline = time.monotonic() + RELEASE_TIMEOUT_S
        while True:
            try:
                self._qmp.execute("blockdev-del", node_name=node)
                return
            except QmpError:  # requests in flight hold it for a moment
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
