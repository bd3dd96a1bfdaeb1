"""What a host remembers: floors that only rise, a pinned root, and a journal that a power cut may tear."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from appliance.host.install.journal import DONE, FAILED, STARTED, Journal
from appliance.host.tree.prefix import Prefix
from appliance.host.trust.floor_store import read_floors, read_root, write_floors, write_root
from appliance.host.trust.metadata_store import trust_state
from signing.errors import DamagedError
from signing.floors import Floors

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    made = Prefix.at(tmp_path / "host")
    made.create()
    return made


def test_floors_start_at_zero_and_only_rise(prefix: Prefix) -> None:
    assert read_floors(prefix) == Floors()
    assert write_floors(prefix, Floors(1, 5, 5, 5, "2026-01-01T00:00:00Z"))
    assert write_floors(prefix, Floors(1, 3, 6, 5, "2025-01-01T00:00:00Z"))
    assert read_floors(prefix) == Floors(1, 5, 6, 5, "2026-01-01T00:00:00Z")
    assert not write_floors(prefix, Floors(1, 1, 1, 1, ""))


def test_floors_that_a_newer_root_has_reset_are_kept_as_it_left_them(prefix: Prefix) -> None:
    assert write_floors(prefix, Floors(1, 5, 6, 5, "2026-01-01T00:00:00Z"))
    # What a walk over a root with another builder's key proves (TUF 5.3.11): targets and time never fall.
    assert write_floors(prefix, Floors(2, 1, 1, 4, "2025-01-01T00:00:00Z"))
    assert read_floors(prefix) == Floors(2, 1, 1, 5, "2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    "text", ["", "{}", '{"root":0}', "[]", '{"root":"1","snapshot":0,"targets":0,"time":"","timestamp":0}']
)
def test_damaged_floors_are_a_refusal_never_a_fresh_start(prefix: Prefix, text: str) -> None:
    (prefix.trust / "floors.json").write_text(text)
    with pytest.raises(DamagedError) as caught:
        read_floors(prefix)
    assert caught.value.code == "floors.damaged"


@pytest.mark.parametrize(("name", "code"), [("floors.json", "floors.damaged"), ("root.json", "root.unreadable")])
def test_what_a_host_remembers_is_damaged_where_no_file_is(prefix: Prefix, name: str, code: str) -> None:
    (prefix.trust / name).mkdir()
    with pytest.raises(DamagedError) as caught:
        trust_state(prefix)
    assert caught.value.code == code


def test_root_is_pinned_durably_and_absent_is_none(prefix: Prefix) -> None:
    assert read_root(prefix) is None
    assert write_root(prefix, b"root")
    assert not write_root(prefix, b"root")
    assert read_root(prefix) == b"root"


def test_journal_tells_the_step_in_which_the_last_run_stopped(prefix: Prefix) -> None:
    journal = Journal(prefix.journal / "install.jsonl", lambda: NOW)
    assert journal.interrupted("r") is None
    journal.write("r", "import", STARTED)
    stopped = journal.interrupted("r")
    assert stopped is not None
    assert (stopped.step, stopped.time) == ("import", "2026-01-02T03:04:05Z")
    journal.write("r", "import", DONE)
    assert journal.interrupted("r") is None


def test_interruption_counts_until_a_run_for_the_same_release_has_ended_well(prefix: Prefix) -> None:
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


def test_journal_turns_over_before_it_fills_the_disk(prefix: Prefix) -> None:
    path = prefix.journal / "install.jsonl"
    journal = Journal(path, lambda: NOW)
    journal.write("r", "plan", DONE)
    with path.open("a") as file:
        file.write("x" * (1 << 20))
    journal.write("r", "import", STARTED)
    assert [entry.step for entry in journal.read()] == ["import"]
    assert (prefix.journal / "install.1.jsonl").exists()
