"""Usage is counted by account and day, in memory and in a file, and never twice."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pytest

from appliance.events import USAGE_UNWRITTEN, Event
from appliance.host.layout.prefix import Prefix
from appliance.host.site.api_keys import AccessStore
from appliance.resources import playbooks_path
from appliance.serve.callers import books as books_module
from appliance.serve.callers.books import Books
from appliance.serve.callers.usage import Usage, UsageCounts, UsageRow
from appliance.serve.callers.usage_file import KEPT_DAYS, USAGE_FILE, UsageFile, usage_beside
from tests.sim.clock import SimClock

NOW = datetime(2026, 1, 2, 23, 59, 0, tzinfo=timezone.utc)
TODAY = NOW.date()
ANN, BOB = "a" * 12, "b" * 12


@pytest.fixture
def clock() -> SimClock:
    return SimClock(NOW)


@pytest.fixture
def file(tmp_path: Path) -> UsageFile:
    return UsageFile(tmp_path / "usage.db")


def row(account: str, tokens: int, day: date = TODAY) -> UsageRow:
    return UsageRow(day, account, UsageCounts(tokens, tokens, 1))


def test_day_ends_at_midnight_utc_and_what_is_not_written_keeps_its_day(clock: SimClock) -> None:
    usage = Usage(clock)
    usage.add(ANN, UsageCounts(3, 4, 1))
    assert (usage.today(ANN).tokens, usage.today(BOB).tokens, usage.seconds_to_midnight()) == (7, 0, 61)
    clock.pass_time(60)
    assert usage.today(ANN).tokens == 0
    usage.add(ANN, UsageCounts(1, 0))
    assert [(found.day.day, found.counts.tokens) for found in usage.take_pending()] == [(2, 7), (3, 1)]
    assert usage.totals[ANN] == UsageCounts(4, 4, 1)


def test_rows_add_up_in_the_file_and_old_ones_go(file: UsageFile) -> None:
    today = NOW.date()
    file.add([row(ANN, 1, today - timedelta(days=KEPT_DAYS)), row(ANN, 2)], today)
    file.add([row(ANN, 3), row(BOB, 5)], today + timedelta(days=1))
    assert file.read(date.min) == (UsageRow(today, ANN, UsageCounts(5, 5, 2)), row(BOB, 5))
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_file_with_columns_of_a_later_version_is_written_and_read(file: UsageFile) -> None:
    file.add([row(ANN, 1)], NOW.date())
    with closing(sqlite3.connect(file.path)) as database, database:
        database.execute("ALTER TABLE usage ADD COLUMN images INTEGER")
    file.add([row(ANN, 1)], NOW.date())
    assert [found.counts.tokens_in for found in file.read(NOW.date())] == [2]


def test_row_that_no_gateway_writes_is_passed_over(file: UsageFile) -> None:
    file.add([row(ANN, 1)], NOW.date())
    with closing(sqlite3.connect(file.path)) as database, database:
        for values in (("2026-01-02", "ann", 1, 1, 1), ("soon", BOB, 1, 1, 1), ("2026-01-02", BOB, -1, 1, "x")):
            database.execute("INSERT INTO usage VALUES (?, ?, ?, ?, ?)", values)
    assert file.read(date.min) == (row(ANN, 1),)


def test_file_that_is_no_database_is_put_aside(file: UsageFile) -> None:
    file.path.write_bytes(b"no database, " * 1000)
    file.add([row(ANN, 1)], NOW.date())
    assert file.read(NOW.date()) == (row(ANN, 1),)
    assert file.path.with_name("usage.db.damaged").exists()


def test_link_in_the_folder_is_not_followed(file: UsageFile, tmp_path: Path) -> None:
    file.path.symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic"):
        file.add([row(ANN, 1)], NOW.date())
    assert not (tmp_path / "other").exists()
    assert file.read(date.min) == ()


async def serve(books: Books, tmp_path: Path, account: str, *counts: UsageCounts) -> None:
    async with books.running(AccessStore(tmp_path / "access.db")):
        for one in counts:
            books.usage.add(account, one)
            await asyncio.sleep(0.02)


def test_next_gateway_goes_on_counting_where_this_one_ended(
    clock: SimClock, file: UsageFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books_module, "WRITE_S", 0.005)
    asyncio.run(serve(Books(clock, file.path), tmp_path, ANN, *[UsageCounts(2, 3, 1)] * 3))
    following = Books(clock, file.path)
    asyncio.run(serve(following, tmp_path, ANN, UsageCounts(1, 0)))
    assert following.usage.today(ANN) == UsageCounts(7, 9, 3)
    assert file.read(NOW.date()) == (UsageRow(NOW.date(), ANN, UsageCounts(7, 9, 3)),)


def test_full_disk_stops_nothing_and_what_was_counted_is_written_later(
    clock: SimClock, file: UsageFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    books = Books(clock, file.path, events.append)

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(UsageFile, "add", fail)
        for _ in range(2):
            books.usage.add(ANN, UsageCounts(2, 3, 1))
            asyncio.run(books.write())
    assert books.usage.today(ANN).tokens == 10
    assert events == [Event(USAGE_UNWRITTEN, {"reason": "OperationalError"})]
    asyncio.run(books.write())
    assert file.read(NOW.date()) == (UsageRow(NOW.date(), ANN, UsageCounts(4, 6, 2)),)


def test_unit_may_write_the_folder_that_every_program_means() -> None:
    unit = (playbooks_path() / "roles/gateway/templates/appliance-gateway.service.j2").read_text()
    state = dict(line.split("=", 1) for line in unit.splitlines() if line.startswith("StateDirectory"))
    system = Prefix(Path("/"))
    assert Path("/var/lib") / state["StateDirectory"] == system.gateway_state
    assert state["StateDirectoryMode"] == "0700"
    assert usage_beside(system.access) == system.gateway_state / USAGE_FILE


def test_nothing_is_made_where_the_folder_is_missing(clock: SimClock, tmp_path: Path) -> None:
    path = usage_beside(tmp_path / "lib" / "appliance" / "access.db")
    assert path == tmp_path / "lib" / "appliance-gateway" / "usage.db"
    asyncio.run(serve(Books(clock, path), tmp_path, ANN, UsageCounts(1, 1)))
    assert not path.parent.exists()
