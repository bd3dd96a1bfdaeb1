"""Putting the keys of a backup back into a host's `access.db` (threat T128).

Owns the rule which of two rows counts. A key that this host has stays as this host has it: a backup never gives a key
more than it has here.

Rules:
- a key is the same where its id is the same. Where it is revoked in one of the two, it is revoked;
- a key that only the backup has is added, with its rights and its account. Where its name is taken, its id is added
  to the name;
- a database with other tables or columns than this version knows is refused: a restriction could be lost;
- all of it is one transaction.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from appliance.host.site.api_keys import AccessStore
from appliance.host.site.key_rotation import former_name
from signing.errors import DamagedError, HostUnfitError

_COLUMNS = {
    "keys": ("name", "id", "sha256", "created", "expires", "revoked", "models"),
    "rights": ("key", "role", "labels", "kind", "policy", "quotas", "priority", "strict", "models"),
    "accounts": ("key", "account"),
}
_NAME, _ID, _REVOKED = 0, 1, 5
Row = tuple[str | int | None, ...]


@dataclass(frozen=True, slots=True)
class MergedKeys:
    """What a merge did: names of keys that were added, and of keys that became revoked."""

    added: tuple[str, ...]
    revoked: tuple[str, ...]


def merge_keys(target: Path, backup: Path) -> MergedKeys:
    """Add the keys of a backup to those of this host. Doing it twice changes nothing more.

    Args:
        target: the host's database; made where it is missing.
        backup: a copy of another one, verified, on this host's disk.

    Raises:
        HostUnfitError: the backup has tables or columns of a later version.
        DamagedError: one of the two cannot be read or written.
    """
    AccessStore(target)
    try:
        theirs = _read(backup)
        with closing(sqlite3.connect(target, timeout=5.0, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            merged = _merge(database, theirs)
            database.execute("COMMIT")
    except sqlite3.Error as error:
        raise DamagedError(
            "access.damaged",
            str(backup),
            expected="a database of keys",
            found=str(error),
            hint="use another backup; the keys of this host are as they were",
        ) from None
    return merged


def merge_key(mine: Row, theirs: Row) -> Row:
    """The row of a key that both have: this host's own, revoked where one of the two is.

    Args:
        mine, theirs: in the order of the table's columns.
    """
    return (*mine[:_REVOKED], mine[_REVOKED] or theirs[_REVOKED], *mine[_REVOKED + 1 :])


def _read(path: Path) -> dict[str, list[Row]]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        database.execute("PRAGMA trusted_schema = OFF")
        names = database.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
        unknown = [f"{kind} {name}" for kind, name in names if kind != "table" or name not in _COLUMNS]
        tables = [name for _, name in names if name in _COLUMNS]
        for table in tables:
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            unknown += [f"column {table}.{name}" for name in columns if name not in _COLUMNS[table]]
        if unknown:
            raise HostUnfitError(
                "restore.newer-keys",
                path.name,
                expected="the tables and columns that this version knows",
                found=", ".join(unknown)[:200],
                hint="install the release that wrote this backup, then restore it",
            )
        return {
            table: database.execute(f"SELECT {', '.join(_COLUMNS[table])} FROM {table}").fetchall() for table in tables
        }


def _merge(database: sqlite3.Connection, theirs: dict[str, list[Row]]) -> MergedKeys:
    columns = ", ".join(_COLUMNS["keys"])
    mine: dict[object, Row] = {row[_ID]: row for row in database.execute(f"SELECT {columns} FROM keys")}
    names = {row[_NAME] for row in mine.values()}
    beside = {table: {row[0]: row for row in theirs.get(table, ())} for table in ("rights", "accounts")}
    added, revoked = [], []
    for row in theirs.get("keys", ()):
        own = mine.get(row[_ID])
        if own is not None:
            merged = merge_key(own, row)
            if merged != own:
                _put(database, "keys", (own[_NAME], *merged[1:]))
                revoked += [str(own[_NAME])] if merged[_REVOKED] and not own[_REVOKED] else []
            continue
        name = _free_name(str(row[_NAME]), str(row[_ID]), names)
        names.add(name)
        for table, rows in beside.items():
            if row[_ID] in rows:
                _put(database, table, rows[row[_ID]])
        _put(database, "keys", (name, *row[1:]))
        added.append(name)
    return MergedKeys(tuple(added), tuple(revoked))


def _put(database: sqlite3.Connection, table: str, row: Row) -> None:
    marks = ", ".join("?" * len(row))
    database.execute(f"INSERT OR REPLACE INTO {table} ({', '.join(_COLUMNS[table])}) VALUES ({marks})", row)


def _free_name(name: str, key_id: str, taken: set[str | int | None]) -> str:
    return former_name(name, key_id) if name in taken else name
