"""The table of threats agrees with the tests beside it."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.harness import ANSWERED, OPEN, PARTS, Threat, resolve, table

HERE = Path(__file__).parent
ROWS, MAX_OPEN = table()
ANSWERED_ROWS = [threat for threat in ROWS if threat.status == ANSWERED]


def modules(threat: Threat) -> list[Path]:
    return sorted(HERE.glob(f"test_t{threat.row:02}_*.py"))


def names_in(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.name


def test_every_threat_is_there_once() -> None:
    numbers = [threat.row for threat in ROWS]
    assert numbers == sorted(set(numbers))
    assert numbers[:41] == list(range(1, 42)), "later rows may have gaps; these have none"
    assert {threat.status for threat in ROWS} <= {ANSWERED, OPEN}


def test_as_many_rows_are_open_as_the_table_allows_and_the_number_only_falls() -> None:
    still = [threat.row for threat in ROWS if threat.status == OPEN]
    assert len(still) == MAX_OPEN, f"open: {still}; set open_count_max to {len(still)} if it fell"


@pytest.mark.parametrize("threat", ANSWERED_ROWS, ids=lambda threat: f"t{threat.row:02}")
def test_answered_row_has_a_module_with_all_three_parts(threat: Threat) -> None:
    [path] = modules(threat)
    names = list(names_in(path))
    assert [part for part in PARTS if not any(name.startswith(part) for name in names)] == []
    assert [name for name in names if not name.startswith(PARTS)] == []
    assert f"row({threat.row})" in path.read_text()


def test_open_row_has_no_module_and_a_note_of_what_is_missing() -> None:
    for threat in ROWS:
        if threat.status == OPEN:
            assert (modules(threat), threat.guard, bool(threat.note)) == ([], "", True), threat


def test_every_module_is_a_row_of_the_table() -> None:
    numbers = {int(match[1]) for path in HERE.glob("test_t*.py") if (match := re.match(r"test_t(\d{2,3})_", path.name))}
    assert numbers == {threat.row for threat in ANSWERED_ROWS}


@pytest.mark.parametrize("threat", ANSWERED_ROWS, ids=lambda threat: f"t{threat.row:02}")
def test_guard_and_owner_exist(threat: Threat) -> None:
    assert callable(resolve(threat.guard)[2]) or isinstance(resolve(threat.guard)[2], property)
    assert importlib.util.find_spec(threat.owner) is not None


@pytest.mark.parametrize(
    "threat", [threat for threat in ROWS if threat.waits_for], ids=lambda threat: f"t{threat.row:02}"
)
def test_what_a_row_waits_for_is_not_there_yet(threat: Threat) -> None:
    arrived = [name for name in threat.waits_for if importlib.util.find_spec(name) is not None]
    assert arrived == [], f"row {threat.row} needs tests for {arrived}: {threat.note}"


def test_page_of_limits_states_how_many_rows_are_answered_and_lists_the_open_ones() -> None:
    page = (HERE.parents[1] / "docs" / "limits.md").read_text()
    assert f"lists {len(ROWS)} attacks. {len(ANSWERED_ROWS)} are answered" in page
    listed = re.findall(r"^\| (\d+) \|", page.partition("## The list of attacks")[2], re.MULTILINE)
    assert [int(number) for number in listed] == [threat.row for threat in ROWS if threat.status == OPEN]
