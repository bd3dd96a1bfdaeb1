"""T3: a version so high that no honest one could ever follow it."""

from __future__ import annotations

import pytest

from appliance.keys.tuf_metadata import sign
from signing.floors import MAX_STEP, Floors
from tests.attacks.harness import Stick, guard_off, refused, row

ROW = row(3)
HIGHEST = (1 << 63) - 1
NEW_HOST, OLD_HOST = Floors(), Floors(1, 1, 1, 1)


def jump(stick: Stick, version: int) -> None:
    """Targets of that version, signed by the threshold."""
    repository = stick.repository
    entries = repository.signed(repository.targets_name)["targets"]
    repository.put_targets(sign(repository.targets_of(entries, version), repository.signers()), version)
    stick.save()


def jump_alone(stick: Stick, version: int) -> None:
    """Snapshot and timestamp of that version, by the builder's key."""
    stick.repository.put_snapshot(version)
    stick.save()


def test_unattacked_step_up_to_the_cap_is_taken(stick: Stick) -> None:
    jump(stick, 1 + MAX_STEP)
    stick.verify(OLD_HOST)
    jump_alone(stick, 1 + MAX_STEP)
    stick.verify(OLD_HOST)


def test_unattacked_new_host_takes_what_people_have_published_for_years(stick: Stick) -> None:
    jump(stick, 20 * MAX_STEP)
    jump_alone(stick, 21 * MAX_STEP)
    stick.verify(NEW_HOST)


@pytest.mark.parametrize("version", [2 + MAX_STEP, HIGHEST])
def test_attacked_by_a_jump_of_targets(stick: Stick, version: int) -> None:
    jump(stick, version)
    refused(ROW, lambda: stick.verify(OLD_HOST), "version.fast-forward", f"{version}.targets.json")


@pytest.mark.parametrize("floors", [NEW_HOST, OLD_HOST], ids=["new host", "old host"])
@pytest.mark.parametrize("version", [3 + MAX_STEP, HIGHEST])
def test_attacked_by_a_jump_with_a_stolen_builders_key(stick: Stick, version: int, floors: Floors) -> None:
    jump_alone(stick, version)
    refused(ROW, lambda: stick.verify(floors), "version.fast-forward", "timestamp.json")


def test_attacked_on_a_new_host_the_command_ends_with_not_trusted(stick: Stick) -> None:
    jump_alone(stick, HIGHEST)
    assert stick.command().code == 4


def test_unguarded_the_floor_rises_out_of_reach(stick: Stick) -> None:
    jump_alone(stick, HIGHEST)
    with guard_off(ROW.guard, lambda *_: None):
        assert stick.verify(NEW_HOST).evidence.floors.timestamp == HIGHEST
