"""The journal of installs names the step of an interruption, also after a power cut."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from appliance.host.change.journal import DONE, FAILED, STARTED, Journal
from appliance.host.layout.prefix import Prefix

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    made = Prefix.at(tmp_path / "host")
    made.create()
    return made


def test_journal_names_the_step_in_which_the_last_run_stopped(prefix: Prefix) -> None:
    journal = Journal(prefix.journal / "install.jsonl", lambda: NOW)
    assert journal.interrupted("r") is None
    journal.write("r", "import", STARTED)
    stopped = journal.interrupted("r")
    assert stopped is not None
    assert (stopped.step, stopped.time) == ("import", "2026-01-02T03:04:05Z")
    journal.write("r", "import", DONE)
    assert journal.interrupted("r") is None


def test_interruption_counts_until_a_run_for_the_same_release_has_succeeded(prefix: Prefix) -> None:
    journal = Journal(prefix.journal / "install.jsonl", lambda: NOW)
    journal.write("r", "candidate", STARTED)
    for step, state in (("plan", STARTED), ("plan", FAILED)):
        journal.write("r", step, state)
    for release in ("other", "r"):
        stopped = journal.interrupted("r")
        assert stopped is not None
        assert (stopped.step, journal.interrupted("other")) == ("candidate", None)
        journal.write(release, "commit", STARTED)
        journal.write(release, "commit", DONE)
    assert journal.interrupted("r") is None


def test_line_that_is_no_entry_is_skipped(prefix: Prefix) -> None:
    (prefix.journal / "install.jsonl").write_text("[" * 100_000 + "\n[]\n7\n{}\n")
    journal = Journal(prefix.journal / "install.jsonl", lambda: NOW)
    journal.write("r", "import", STARTED)
    assert [entry.step for entry in journal.read()] == ["import"]


def test_line_torn_by_a_power_cut_is_skipped_and_does_not_swallow_the_next(prefix: Prefix) -> None:
    path = prefix.journal / "install.jsonl"
    journal = Journal(path, lambda: NOW)
    journal.write("r", "plan", DONE)
    with path.open("a") as file:
        file.write('{"time": "2026')
    journal.write("r", "import", STARTED)
    assert [entry.step for entry in journal.read()] == ["plan", "import"]


def test_journal_begins_a_new_file_before_it_fills_the_disk(prefix: Prefix) -> None:
    path = prefix.journal / "install.jsonl"
    journal = Journal(path, lambda: NOW)
    journal.write("r", "plan", DONE)
    with path.open("a") as file:
        file.write("x" * (1 << 20))
    journal.write("r", "import", STARTED)
    assert [entry.step for entry in journal.read()] == ["import"]
    assert (prefix.journal / "install.1.jsonl").exists()
