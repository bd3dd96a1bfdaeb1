"""T123: a release that does not read what a later one has stored here, and would misread it."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.host.install.bundle_admission import admit, run_preflight
from appliance.host.layout.places import STATE_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.preflight.inputs import Host
from appliance.host.release.release import open_current
from appliance.host.release.release_check import check_release
from appliance.host.release.state_format import read_state_format
from tests.appliance.host.change.shell_host import NEW, OLD, ShellHost
from tests.appliance.sim_card import CARD
from tests.appliance.sim_host import SimHost, new_host
from tests.attacks.harness import guard_off, refused, row
from tests.toy import NOW

ROW = row(123)


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    return new_host(tmp_path_factory.mktemp("t123"))


def preflight(sim: SimHost) -> None:
    host = Host(sim.prefix, CARD, lambda: NOW, "")
    run_preflight(admit(sim.source, sim.trust, host), host)


def store_later_state(prefix: Prefix) -> None:
    prefix.create()
    prefix.state_format.write_bytes(b"2\n")


def test_unattacked_state_of_the_first_format_is_read_by_all(sim: SimHost, tmp_path: Path) -> None:
    preflight(sim)
    host = ShellHost.make(tmp_path)
    assert host.run().returncode == 0
    host.assert_whole(OLD)


def test_attacked_by_a_rollback_to_a_release_that_reads_less(tmp_path: Path) -> None:
    host = ShellHost.make(tmp_path)
    store_later_state(host.prefix)
    done = host.run()
    assert done.returncode in ROW.exit
    assert f"{OLD}: does not read the stored state of this host (state.unread)" in done.stderr
    host.assert_whole(NEW)


def test_attacked_by_an_install_of_a_bundle_that_reads_less(sim: SimHost) -> None:
    store_later_state(sim.prefix)
    try:
        refused(ROW, lambda: preflight(sim), "state.unread", "toy 1.0.0")
    finally:
        sim.prefix.state_format.unlink()


@pytest.mark.parametrize("data", [b"", b"2", b"02\n", b"1\n2\n", b"-1\n", b"9" * 400 + b"\n"])
def test_attacked_by_a_number_that_no_install_writes(sim: SimHost, data: bytes) -> None:
    store_later_state(sim.prefix)
    sim.prefix.state_format.write_bytes(data)
    try:
        refused(ROW, lambda: read_state_format(sim.prefix), "state.format", str(sim.prefix.state_format))
    finally:
        sim.prefix.state_format.unlink()


def test_attacked_by_a_release_whose_list_was_made_longer(sim: SimHost) -> None:
    release = sim.install()
    (release.path / STATE_FILE).write_text("reads=1:2\nwrites=1\n")
    refused(ROW, lambda: check_release(open_current(sim.prefix, NOW)), "release.config-changed", STATE_FILE)


def test_unguarded_the_older_program_is_let_in(sim: SimHost) -> None:
    store_later_state(sim.prefix)
    try:
        with guard_off(ROW.guard, lambda *_: None):
            preflight(sim)
    finally:
        sim.prefix.state_format.unlink()
