"""T131: the counter of attempts is taken away, or its rules are changed, so that it goes on saying 0."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from appliance.host.maintenance import egress
from tests.attacks.harness import guard_off, refused, row

ROW = row(131)
RULES = "table inet appliance_egress {\n\tcounter services {\n\t}\n}\n"
WHOLE = {"services": 0, "others": 0}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the unit leaves when it has loaded its rules."""
    (tmp_path / "rules").write_text(RULES)
    monkeypatch.setattr(egress, "STATE", tmp_path)
    return tmp_path


def judge(counters: Mapping[str, int], rules: str) -> None:
    for problem in egress.rule_problems(counters, rules):
        raise problem


def test_unattacked_counter_passes_whatever_its_numbers_are() -> None:
    judge(WHOLE, RULES)
    judge({"services": 3, "others": 4}, RULES)


@pytest.mark.parametrize(
    ("counters", "rules"),
    [
        ({}, ""),
        ({"services": 0}, RULES),
        (WHOLE, RULES.replace("services", "nobody")),
        ({**WHOLE, "more": 0}, RULES),
    ],
    ids=["no table", "one counter gone", "other rules", "one counter more"],
)
def test_attacked_by_taking_rules_away(counters: dict[str, int], rules: str) -> None:
    refused(ROW, lambda: judge(counters, rules), "egress.not-counted", "nftables table inet appliance_egress")


def test_attacked_by_a_unit_that_never_loaded_rules(state: Path) -> None:
    (state / "rules").unlink()
    refused(ROW, lambda: judge(WHOLE, RULES), "egress.not-counted", "nftables table inet appliance_egress")


def test_unguarded_a_table_that_is_gone_passes_in_silence() -> None:
    with guard_off(ROW.guard, lambda _counters, _rules: []):
        judge({}, "")
