"""T150: an engine that was taken over writes the record of threads, so that the next ones get far too many or few."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.host.machine import thread_choice
from appliance.host.machine.thread_choice import RECORD, choose_threads
from tests.attacks.harness import guard_off, row

ROW = row(150)
MEASURED = {1: (100.0, 98.0), 2: (190.0, 17.0)}


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_choice, "thread_count", lambda: 2)


def forge(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_bytes())
    (folder / RECORD).write_text(json.dumps({**record, "threads": 4096, "rates": {"4096": [1e9, 1e9]}}))


def test_unattacked_record_is_used_again(tmp_path: Path) -> None:
    assert choose_threads(tmp_path, lambda _counts: MEASURED).threads == 1
    assert choose_threads(tmp_path, lambda _counts: {}).threads == 1


def test_attacked_record_is_measured_anew(tmp_path: Path) -> None:
    choose_threads(tmp_path, lambda _counts: MEASURED)
    forge(tmp_path)
    assert choose_threads(tmp_path, lambda _counts: MEASURED).threads == 1


def test_unguarded_engine_gets_what_the_record_says(tmp_path: Path) -> None:
    choose_threads(tmp_path, lambda _counts: MEASURED)
    forge(tmp_path)
    with guard_off(ROW.guard, lambda *_: True):
        assert choose_threads(tmp_path, lambda _counts: MEASURED).threads == 4096
