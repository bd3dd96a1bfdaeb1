"""T4: a host that is shown the same old files for ever."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from appliance.host.install.bundle_admission import admit
from appliance.host.layout.prefix import Prefix
from appliance.host.preflight.inputs import Host
from appliance.host.trust.root_pin import pin_root
from appliance.host.trust.trust_store import write_floors
from signing.floors import Floors
from tests.appliance.sim_card import CARD
from tests.attacks.harness import Stick, command, guard_off, refused, row
from tests.sim.clock import SimClock
from tests.sim.tuf import stated
from tests.toy import NOW

ROW = row(4)
YEARS_LATER = Floors(1, 1, 1, 1, time=stated(NOW + timedelta(days=6 * 365)))
"""A time that other signed files have proved to this host: after everything on the stick has expired."""


@pytest.fixture
def host(stick: Stick, tmp_path: Path) -> Host:
    prefix = Prefix.at(tmp_path / "host")
    pin_root(prefix, stick.root_file, [one.public.fingerprint for one in stick.repository.people.root])
    # The clock shows the time of signing: it must not help.
    return Host(prefix, CARD, SimClock(NOW), "")


def begin_install(stick: Stick, host: Host) -> None:
    """The part of an install that decides about trust."""
    admit(stick.path, stick.root, host)


def test_unattacked_stick_that_is_fresh_enough_may_be_installed(stick: Stick, host: Host) -> None:
    write_floors(host.prefix, stick.verify().evidence.floors)
    begin_install(stick, host)


def test_attacked_with_files_that_expired_before_the_proved_time(stick: Stick, host: Host) -> None:
    write_floors(host.prefix, YEARS_LATER)
    refused(ROW, lambda: begin_install(stick, host), "install.expired", str(stick.path))
    answer = command("install", stick.path, "--trust", stick.root_file, "--prefix", host.prefix.root)
    assert (answer.code, "expired" in answer.talk) == (4, True)
    assert list(host.prefix.releases.iterdir()) == []


def test_attacked_what_is_installed_goes_on_and_shows_how_old_its_proof_is(stick: Stick) -> None:
    evidence = stick.verify(YEARS_LATER).evidence
    assert (evidence.is_expired, evidence.floors.time) == (True, YEARS_LATER.time)


def test_unguarded_the_frozen_stick_is_installed(stick: Stick, host: Host) -> None:
    write_floors(host.prefix, YEARS_LATER)
    with guard_off(ROW.guard, property(lambda _: False)):
        begin_install(stick, host)
