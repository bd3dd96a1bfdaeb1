"""The usage of each account and day on disk: `usage.db`, which only the gateway writes.

Owns the file and its table. Rules:
- the folder belongs to the gateway's user. Where it is missing nothing is written, and nothing is created;
- rows are added to what the file holds, in one transaction for many requests. A gateway that is killed loses at most
  the last few seconds;
- a row holds a public id and numbers, and is deleted after `KEPT_DAYS`;
- a file that is no database is put aside, so that counting goes on.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import date, timedelta
from pathlib import Path

from appliance.serve.callers.usage import UsageCounts, UsageRow

USAGE_FILE = "usage.db"
KEPT_DAYS = 400
_SCHEMA = """
CREATE TABLE IF NOT EXISTS usage (
    day        TEXT NOT NULL,
    account    TEXT NOT NULL,
    tokens_in  INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL,
    requests   INTEGER NOT NULL,
    PRIMARY KEY (day, account)
)
"""
_ADD = """
INSERT INTO usage (day, account, tokens_in, tokens_out, requests) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (day, account) DO UPDATE SET
    tokens_in = tokens_in + excluded.tokens_in,
    tokens_out = tokens_out + excluded.tokens_out,
    requests = requests + excluded.requests
"""
_BUSY_S = 2.0
_ACCOUNT = re.compile(r"[0-9a-f]{12}\Z")


class UsageFile:
    """The file of one host.

    Args:
        path: of the file; in a folder of the gateway's user.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def is_kept(self) -> bool:
        """Whether usage is written here at all."""
        return self.path.parent.is_dir()

    def add(self, rows: Iterable[UsageRow], today: date) -> None:
        """Add rows, and delete those that are older than `KEPT_DAYS`.

        Args:
            rows: added to what the file has for the same day and account.
            today: of UTC.

        Raises:
            sqlite3.Error: nothing of it was written: a full disk, or another process that holds the file.
        """
        values = [
            (row.day.isoformat(), row.account, row.counts.tokens_in, row.counts.tokens_out, row.counts.requests)
            for row in rows
        ]
        try:
            self._add(values, today)
        except sqlite3.DatabaseError as error:
            # The library has types of their own for a full disk, a lock and a mistake in a query.
            if type(error) is not sqlite3.DatabaseError:
                raise
            self.path.replace(self.path.with_name(f"{USAGE_FILE}.damaged"))
            self._add(values, today)

    def read(self, since: date) -> tuple[UsageRow, ...]:
        """Read the rows from a day on, in order of day and account; none where there is no file.

        Raises:
            sqlite3.Error: it is no such database, or cannot be read.
        """
        if not self.path.is_file() or self.path.is_symlink():
            return ()
        query = "SELECT day, account, tokens_in, tokens_out, requests FROM usage WHERE day >= ? ORDER BY day, account"
        with self._open("ro") as database:
            found = database.execute(query, (since.isoformat(),)).fetchall()
        return tuple(filter(None, map(_row, found)))

    def _add(self, values: list[tuple[str, str, int, int, int]], today: date) -> None:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        with self._open("rw") as database:
            database.execute(_SCHEMA)
            database.executemany(_ADD, values)
            database.execute("DELETE FROM usage WHERE day < ?", ((today - timedelta(days=KEPT_DAYS)).isoformat(),))

    @contextmanager
    def _open(self, mode: str) -> Iterator[sqlite3.Connection]:
        name = f"{self.path.absolute().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(name, uri=True, timeout=_BUSY_S)) as database, database:
            # The folder belongs to another user than the one who reads it.
            database.execute("PRAGMA trusted_schema = OFF")
            yield database


def usage_beside(access: Path) -> Path:
    """The file of usage of the host whose database of keys this is; no message names it, so that it has one place."""
    return access.parent.with_name("appliance-gateway") / USAGE_FILE


def _row(found: tuple[object, ...]) -> UsageRow | None:
    """A row of the file; None where it is not one that a gateway writes."""
    day, account, *counts = found
    if not isinstance(day, str) or not isinstance(account, str) or not _ACCOUNT.match(account):
        return None
    numbers = [count for count in counts if isinstance(count, int) and count >= 0]
    try:
        return UsageRow(date.fromisoformat(day), account, UsageCounts(*numbers)) if len(numbers) == 3 else None
    except ValueError:
        return None
