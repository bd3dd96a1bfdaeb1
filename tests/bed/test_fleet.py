"""The hosts of a fleet reach each other, and nothing else."""

from __future__ import annotations

import pytest

from tests.bed.canaries import CANARIES, LOOKUP
from tests.bed.fixtures import tree_folder
from tests.bed.fleet import LAN, Fleet
from tests.bed.network import NotIsolatedError
from tests.bed.open_network import ASK, OUTSIDE, Outside
from tests.bed.tools import call
from tests.bed.trees import DEBIAN_12

pytestmark = pytest.mark.ci
SSH = ["ssh", "-o", "BatchMode=yes"]


def test_first_host_reaches_all_by_ssh_and_nobody_is_counted(fleet: Fleet) -> None:
    control = fleet.hosts[0]
    names = [control.run([*SSH, address, "hostname"], timeout_s=120).out.strip() for address in fleet.addresses]
    assert names == [host.name for host in fleet.hosts]
    assert len(set(names)) == 3
    assert [host.attempts().total for host in fleet.hosts] == [0, 0, 0]


def test_every_attempt_to_leave_the_site_is_counted_at_its_host() -> None:
    with Fleet(tree_folder(DEBIAN_12), size=2) as fleet:
        first, second = fleet.hosts
        for canary in CANARIES:
            first.run(canary.argv, check=False, timeout_s=60)
        first.run(LOOKUP, check=False, timeout_s=120)
        assert {canary.address for canary in CANARIES} <= {one.address for one in first.attempts().destinations}
        assert second.attempts().total == 0


def test_control_a_site_with_an_uplink_fails_the_proof() -> None:
    with Outside() as outside, Fleet(tree_folder(DEBIAN_12), size=1) as fleet:
        fleet.prove()
        outside.cable(fleet.switch, "wan0")
        outside.address(f"{LAN}.254")
        call([*fleet.switch.enter(), "--", "ip", "link", "set", "wan0", "master", "br0", "up"])
        asked = fleet.hosts[0].run(["python3", "-c", ASK.replace(OUTSIDE, f"{LAN}.254")], timeout_s=60)
        assert asked.out == "reached\n"
        with pytest.raises(NotIsolatedError, match="the switch has a way out: wan0"):
            fleet.prove()
