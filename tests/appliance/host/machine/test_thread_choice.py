"""The number of threads is the one that is fast alone and does not collapse beside a second load."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from appliance.host.machine import thread_choice, thread_trial
from appliance.host.machine.thread_choice import (
    COUNTED,
    MEASURED,
    RECORD,
    Rates,
    ThreadChoice,
    best_of,
    candidates,
    choose_threads,
    read_choice,
)

COLLAPSE = {1: (100.0, 98.0), 2: (190.0, 17.0)}
QUIET = {8: (800.0, 790.0), 14: (1400.0, 1390.0), 15: (1500.0, 1480.0)}


class Trial:
    """Measures nothing: it gives rates, and counts how often it was asked."""

    def __init__(self, rates: Rates) -> None:
        self.rates, self.asked = rates, 0

    def __call__(self, counts: Sequence[int]) -> Rates:
        self.asked += 1
        return self.rates


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_choice, "thread_count", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    load(monkeypatch, 0.5)


def load(monkeypatch: pytest.MonkeyPatch, average: float) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (average, 0.0, 0.0))


def test_number_that_collapses_beside_a_load_is_not_chosen() -> None:
    assert best_of(COLLAPSE, 2).threads == 1
    assert best_of(QUIET, 15).threads == 15
    assert best_of({1: (100.0, 98.0), 2: (190.0, 150.0)}, 2).threads == 2


def test_choice_is_kept_until_the_load_or_the_machine_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(COLLAPSE)
    first = choose_threads(tmp_path, trial)
    assert (first.threads, first.how, trial.asked) == (1, MEASURED, 1)
    assert choose_threads(tmp_path, trial) == first
    load(monkeypatch, 1.4)
    choose_threads(tmp_path, trial)
    assert trial.asked == 1
    load(monkeypatch, 1.6)
    choose_threads(tmp_path, trial)
    assert trial.asked == 2
    monkeypatch.setattr(thread_choice, "cpu_identity", lambda: "another")
    choose_threads(tmp_path, trial)
    assert trial.asked == 3
    assert first.describe() == "1, measured (1: 100 alone, 98 beside; 2: 190 alone, 17 beside)"


def test_one_core_needs_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_choice, "thread_count", lambda: 1)
    trial = Trial(COLLAPSE)
    assert (choose_threads(tmp_path, trial), trial.asked) == (ThreadChoice(1), 0)


@pytest.mark.parametrize("rates", [{}, {1: (0.0, 0.0), 2: (0.0, 1.0)}])
def test_what_cannot_be_measured_is_counted_and_not_kept(tmp_path: Path, rates: Rates) -> None:
    assert choose_threads(tmp_path, Trial(rates)) == ThreadChoice(2, COUNTED)
    assert not (tmp_path / RECORD).exists()


def test_folder_that_cannot_be_written_means_a_measurement_at_each_start(tmp_path: Path) -> None:
    trial = Trial(COLLAPSE)
    for _ in range(2):
        assert choose_threads(tmp_path / "none", trial).threads == 1
    assert trial.asked == 2


def test_engine_that_waited_for_the_measurement_of_another_uses_it(tmp_path: Path) -> None:
    other = Trial(COLLAPSE)

    def measure_twice(counts: Sequence[int]) -> Rates:
        raise AssertionError("measured a second time")

    real = thread_choice._alone

    def alone(folder: Path) -> object:
        thread_choice._alone = real
        choose_threads(folder, other)  # what the other does while this one waits
        return real(folder)

    thread_choice._alone = alone  # type: ignore[assignment]
    try:
        assert choose_threads(tmp_path, measure_twice).threads == 1
    finally:
        thread_choice._alone = real
    assert other.asked == 1


RECORDED = {"rates": {"1": [1.0, 1.0], "2": [9.0, 9.0]}, "load": 0.0, "key": "k", "threads": 77}


@pytest.mark.parametrize(
    "change",
    [
        {"rates": {"0": [1, 1]}},
        {"rates": {"2": [-1, 1]}},
        {"rates": {"2": [1]}},
        {"rates": 5},
        {"load": "x"},
        {"rates": {}},
    ],
)
def test_record_that_is_none_is_no_choice(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / RECORD).write_text(json.dumps({**RECORDED, **change}))
    assert read_choice(tmp_path) is None


def test_record_cannot_set_a_number_that_its_rates_do_not_give(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text(json.dumps(RECORDED))
    found = read_choice(tmp_path)
    assert found is not None
    assert found.threads == 2


@given(some.integers(1, 512))
def test_few_numbers_are_measured_and_the_largest_is_among_them(most: int) -> None:
    found = candidates(most)
    assert len(found) <= 7
    assert (found[0], found[-1]) == (1, most)


def test_trial_measures_with_real_workers_and_ends_soon() -> None:
    began = time.monotonic()
    rates = thread_choice._measure((1, 2))
    assert set(rates) == {1, 2}
    assert rates[1][0] > 0
    assert time.monotonic() - began < thread_choice._TIMEOUT_S


def test_trial_that_does_not_come_to_an_end_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_trial, "__file__", "/nonexistent/trial.py")
    assert thread_choice._measure((1, 2)) == {}
