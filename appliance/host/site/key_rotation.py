"""Keys of one owner that follow one another: the table `accounts` of `access.db`.

Owns what becomes of the old key and which keys belong together. Rules:
- an account is named by the id of its first key. Usage, quotas and shares belong to it, so that a new key does not
  begin a new day;
- the new key takes the name. The old one stays in the list under its name with its id added: it is never used again
  for somebody else;
- the new key has the rights of the old one, column by column, also those that this version does not know;
- revoking a name revokes the older keys of its account, too. The name of a former key never ends its successor;
- each change is one transaction of the caller.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime, timezone

from signing.errors import UsageError

SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (
    key     TEXT PRIMARY KEY,
    account TEXT NOT NULL
)
"""
"""`key` is the id of a key that a rotation made, `account` the id of its owner's first key. Others have no row."""
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_MAX_NAME = 64


@dataclass(frozen=True, slots=True)
class RotationTimes:
    """When a rotation happens, and when the two keys end.

    Args:
        now: the clock, in UTC.
        old_ends: when the old key ends, in UTC; not after it would have ended anyway.
        new_ends: when the new key ends, in UTC; None for when the old one was to end.
    """

    now: datetime
    old_ends: datetime
    new_ends: datetime | None


def rotate(database: sqlite3.Connection, name: str, key_id: str, sha256: str, times: RotationTimes) -> None:
    """Put a new key in the place of the one that has this name.

    Args:
        database: open; the caller commits.
        name: of the key.
        key_id: of the new key.
        sha256: of its secret.
        times: of both keys.

    Raises:
        UsageError: there is no key of that name, it was revoked, or the new one would have ended already.
    """
    database.execute("BEGIN IMMEDIATE")
    columns = "keys.id, keys.expires, keys.revoked, keys.models"
    row = database.execute(f"SELECT {columns} FROM keys WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise unknown_name(name)
    former, expires, revoked, models = row
    if revoked is not None:
        raise UsageError(
            "access.revoked",
            name,
            expected="a key that was not revoked",
            found=f"one that was revoked {revoked}",
            hint="grant a key under another name",
        )
    now, old_ends = _text(times.now), _text(times.old_ends)
    until = expires if times.new_ends is None else _text(times.new_ends)
    if until is not None and until <= now:
        raise UsageError(
            "access.over",
            name,
            expected="a new key that counts",
            found=f"one that would have ended {until}",
            hint="give it another end: --expires 90d",
        )
    ended = now if old_ends <= now else None
    old_ends = old_ends if expires is None else min(old_ends, expires)
    change = "UPDATE keys SET name = ?, expires = ?, revoked = ? WHERE id = ?"
    database.execute(change, (former_name(name, former), expires if ended else old_ends, ended, former))
    new = (name, key_id, sha256, now, until, models)
    database.execute("INSERT INTO keys (name, id, sha256, created, expires, models) VALUES (?, ?, ?, ?, ?, ?)", new)
    _copy_rights(database, former, key_id)
    database.execute("INSERT INTO accounts VALUES (?, ?)", (key_id, account_of(database, former)))


def revoke(database: sqlite3.Connection, name: str, now: str) -> bool:
    """Revoke the key of a name and the older ones of its account. Returns whether one of them was not revoked before.

    Args:
        database: open; the caller commits.
        name: of a key.
        now: as it is stored.
    """
    row = database.execute("SELECT id, created FROM keys WHERE name = ?", (name,)).fetchone()
    if row is None:
        return False
    key_id, created = row
    account = account_of(database, key_id)
    which = "revoked IS NULL AND (id = ? OR id IN (SELECT key FROM accounts WHERE account = ?))"
    values = [now, account, account]
    if name.endswith(f"-{key_id}"):
        # Two keys may be of one second: the newest is the one whose name is not a former one.
        which += " AND created <= ? AND name LIKE '%-' || id"
        values.append(created)
    return database.execute(f"UPDATE keys SET revoked = ? WHERE {which}", values).rowcount > 0


def account_of(database: sqlite3.Connection, key_id: str) -> str:
    """The account of a key: the id of its owner's first key."""
    row = database.execute("SELECT account FROM accounts WHERE key = ?", (key_id,)).fetchone()
    return key_id if row is None else str(row[0])


def former_name(name: str, key_id: str) -> str:
    """The name of a key whose name another one has got."""
    return f"{name[: _MAX_NAME - len(key_id) - 1]}-{key_id}"


def unknown_name(name: str) -> UsageError:
    """The error for a name that no key has."""
    return UsageError(
        "access.unknown", name, expected="the name of a key", found="no such key", hint="see 'appliance access list'"
    )


def _copy_rights(database: sqlite3.Connection, former: str, key_id: str) -> None:
    columns = [row[1] for row in database.execute("PRAGMA table_info(rights)") if row[1] != "key"]
    listed = ", ".join(columns)
    copy = f"INSERT INTO rights (key, {listed}) SELECT ?, {listed} FROM rights WHERE key = ?"
    database.execute(copy, (key_id, former))


def _text(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime(_TIME)
