"""T27: the machine's clock is wrong, by accident or on purpose."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from appliance import clock as machine_clock
from appliance.host.install.bundle_admission import admit
from appliance.host.layout.prefix import Prefix
from appliance.host.preflight.inputs import Host
from appliance.host.trust.trust_store import write_floors, write_root
from signing.errors import NotTrustedError
from signing.floors import Floors
from tests.appliance.sim_card import CARD
from tests.attacks.harness import Stick, guard_off, row
from tests.sim.clock import EPOCH, SimClock
from tests.sim.tuf import stated
from tests.toy import NOW

ROW = row(27)
IN_2018 = datetime(2018, 1, 1, tzinfo=timezone.utc)
IN_2099 = datetime(2099, 12, 31, tzinfo=timezone.utc)
CLOCKS = [EPOCH, IN_2018, IN_2099]


def begin_install(stick: Stick, folder: Path, clock: datetime) -> None:
    """The part of an install that decides about trust, on a host to which 2032 has been proved."""
    prefix = Prefix.at(folder / "host")
    prefix.create()
    write_root(prefix, stick.root)
    write_floors(prefix, Floors(1, 1, 1, 1, time=stated(NOW + timedelta(days=6 * 365))))
    admit(stick.path, stick.root, Host(prefix, CARD, SimClock(clock), ""))


def test_unattacked_right_clock_gives_no_warning(stick: Stick, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_clock, "utc_now", SimClock(NOW + timedelta(days=1)))
    answer = stick.command()
    assert (answer.code, "clock" in answer.talk) == (0, False)


@pytest.mark.parametrize("moment", CLOCKS, ids=str)
def test_attacked_by_a_wrong_clock_it_verifies_and_warns(
    stick: Stick, moment: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_clock, "utc_now", SimClock(moment))
    answer = stick.command()
    assert [answer.code] == list(ROW.exit)
    assert ("this machine's clock is behind" in answer.talk) == (moment < NOW)


@pytest.mark.parametrize("moment", CLOCKS, ids=str)
def test_attacked_by_a_wrong_clock_the_same_is_proved(stick: Stick, moment: datetime) -> None:
    right, wrong = stick.verify().evidence, stick.verify(now=moment).evidence
    assert (wrong.floors, wrong.is_expired, wrong.status) == (right.floors, False, right.status)


@pytest.mark.parametrize("moment", CLOCKS, ids=str)
def test_attacked_by_a_clock_set_back_what_has_expired_stays_expired(
    stick: Stick, tmp_path: Path, moment: datetime
) -> None:
    with pytest.raises(NotTrustedError) as caught:
        begin_install(stick, tmp_path, moment)
    assert caught.value.code == "install.expired"


def test_unguarded_by_the_proved_time_expired_files_are_installed(stick: Stick, tmp_path: Path) -> None:
    with guard_off(ROW.guard, property(lambda _: False)):
        begin_install(stick, tmp_path, IN_2018)
