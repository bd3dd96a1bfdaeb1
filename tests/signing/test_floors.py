"""Floors: the lowest versions that a host accepts, the highest, and what raises them."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from signing.errors import NotTrustedError
from signing.floors import Floors, parse_floors
from signing.strictjson import MAX_INT, to_file

ROLES = ("root", "timestamp", "snapshot", "targets")
FIVE = Floors(5, 5, 5, 5, "2026-01-01T00:00:00Z")


def at(role: str, version: int) -> Floors:
    return replace(Floors(), **{role: version})  # type: ignore[arg-type]


def test_a_host_that_has_accepted_nothing_stands_at_nothing() -> None:
    assert Floors() == Floors(0, 0, 0, 0, "")


@pytest.mark.parametrize("role", ROLES)
def test_the_floor_itself_and_all_up_to_ten_thousand_above_it_are_taken(role: str) -> None:
    for version in (7, 8, 10_007):
        at(role, 7).check(role, version, "file")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("floor", "version", "code"),
    [
        (7, 6, "rollback"),
        (7, 0, "rollback"),
        (1, 0, "rollback"),
        (7, 10_008, "fast-forward"),
        (1, 1 << 62, "fast-forward"),
    ],
)
def test_below_the_floor_and_far_above_it_are_refused(role: str, floor: int, version: int, code: str) -> None:
    with pytest.raises(NotTrustedError) as caught:
        at(role, floor).check(role, version, "file")
    assert (caught.value.code, caught.value.subject) == (f"version.{code}", "file")


@pytest.mark.parametrize("role", ROLES)
def test_without_a_floor_any_version_is_taken_and_other_roles_floors_do_not_count(role: str) -> None:
    Floors().check(role, 10_001, "file")
    replace(FIVE, **{role: 0}).check(role, 1 << 62, "file")  # type: ignore[arg-type]


def test_a_rotation_takes_away_the_builders_floors_alone() -> None:
    assert FIVE.after_rotation() == replace(FIVE, timestamp=0, snapshot=0)


@pytest.mark.parametrize("role", [*ROLES[1:], "time"])
def test_floors_only_rise_each_by_itself(role: str) -> None:
    low, high = {"time": ("2025-12-31T23:59:59Z", "2026-01-01T00:00:01Z")}.get(role, (4, 6))
    changes: dict[str, object] = {role: low}
    assert FIVE.raised(replace(FIVE, **changes)) == FIVE  # type: ignore[arg-type]
    changes = {role: high}
    assert FIVE.raised(replace(FIVE, **changes)) == replace(FIVE, **changes)  # type: ignore[arg-type]


def test_a_newer_root_leaves_the_builders_floors_as_it_found_them() -> None:
    newer = Floors(6, 2, 3, 4, "")
    assert FIVE.raised(newer) == Floors(6, 2, 3, 5, FIVE.time)
    assert FIVE.raised(replace(newer, root=5)) == FIVE
    assert FIVE.raised(replace(newer, root=4)) == FIVE


@pytest.mark.parametrize("floors", [FIVE, replace(FIVE, time=""), Floors(1, 1, 1, 1), replace(FIVE, targets=MAX_INT)])
def test_floors_that_were_written_are_read(floors: Floors) -> None:
    assert parse_floors(to_file(asdict(floors)), "floors.json") == floors


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("version", [0, -1, True, None, "5", [5]])
def test_a_file_of_floors_with_another_version_is_refused_and_names_it(role: str, version: object) -> None:
    with pytest.raises(NotTrustedError) as caught:
        parse_floors(to_file({**asdict(FIVE), role: version}), "floors.json")
    assert (caught.value.code, caught.value.subject) == ("floors.refused", "floors.json")
    assert caught.value.found == f"other values in {role}"


@pytest.mark.parametrize("value", [[], None, {}, {**asdict(FIVE), "more": 1}, {"time": ""}])
def test_a_file_of_other_floors_is_refused(value: object) -> None:
    with pytest.raises(NotTrustedError) as caught:
        parse_floors(to_file(value), "floors.json")
    assert (caught.value.code, caught.value.expected) == ("floors.refused", "the five fields of floors")


@pytest.mark.parametrize("time", ["soon", None, 1, "2026-02-30T00:00:00Z"])
def test_a_file_of_floors_with_a_time_that_nobody_states_is_refused(time: object) -> None:
    with pytest.raises(NotTrustedError) as caught:
        parse_floors(to_file({**asdict(FIVE), "time": time}), "floors.json")
    assert (caught.value.code, caught.value.subject) == ("metadata.refused", "floors.json")
