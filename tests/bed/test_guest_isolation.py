"""The guest has no network, and the test that says so would notice one."""

from __future__ import annotations

import pytest

from tests.bed.guest import Guest
from tests.bed.guest_bed import fresh_guest
from tests.bed.guest_isolation import NotIsolatedError, prove_isolated
from tests.bed.guest_machine import USB_BUS

pytestmark = pytest.mark.vm


def test_guest_has_no_link_but_loopback_and_no_attempt_leaves_it(guest: Guest) -> None:
    prove_isolated(guest)


def test_guest_with_a_network_adapter_fails_the_proof(guest: Guest) -> None:
    guest.process.qmp.execute("netdev_add", type="user", id="outside")
    guest.process.qmp.execute("device_add", driver="usb-net", netdev="outside", id="adapter", bus=USB_BUS)
    guest.run(["udevadm", "wait", "--timeout=20", "/sys/class/net/usb0"])
    with pytest.raises(NotIsolatedError, match="usb0"):
        prove_isolated(guest)
    guest.run(["ip", "address", "add", "10.0.2.15/24", "dev", "usb0"])
    guest.run(["ip", "link", "set", "usb0", "up"])
    guest.run(["ip", "route", "add", "default", "via", "10.0.2.2"])
    with pytest.raises(NotIsolatedError, match="'10.0.2.2': '(?!ENETUNREACH)"):
        prove_isolated(guest)


def test_two_guests_of_one_frozen_state_differ_in_their_random_numbers_and_know_the_time(guest: Guest) -> None:
    import time

    random = ["head", "-c", "16", "/dev/urandom"]
    with fresh_guest() as other:
        assert guest.run(random).out != other.run(random).out
    assert abs(float(guest.run(["date", "+%s"]).out) - time.time()) < 60
