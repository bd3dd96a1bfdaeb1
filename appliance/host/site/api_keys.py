"""API keys: their names, and the models that each may use (threats T37 and T97).

Owns `access.db`. It must never store a key: only its sha256, which suffices because a key is 256 random bits.

Rules:
- a key is `ak-<id>-<secret>`. The id selects the row; the secret is compared in constant time, also for unknown ids;
- expired and revoked keys are refused like wrong ones, and the caller cannot see which it was;
- columns and tables are only ever added to the database: an older release must be able to use it;
- keys that follow one another by rotation are one account (`appliance.host.site.key_rotation`);
- a key with rights of its own (`appliance.host.site.rights`) has an empty list of models in `keys`, and its own list
  in `rights`: an older release, which reads only `keys`, never gives it more.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import re
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from appliance.events import ACCESS_GRANTED, Event, OnEvent, ignore
from appliance.file_state import FileState, file_state, is_settled
from appliance.host.layout.atomic_file import write_file
from appliance.host.site import key_rotation
from appliance.host.site import rights as rights_table
from appliance.host.site.cut_off_write import is_cut_off, open_rolled_back
from appliance.host.site.rights import Rights
from signing.errors import ApplianceError, BusyError, DamagedError, UsageError

_KEY = re.compile(r"ak-([0-9a-f]{12})-([A-Za-z0-9_-]{43})\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    name    TEXT PRIMARY KEY,
    id      TEXT NOT NULL UNIQUE,
    sha256  TEXT NOT NULL,
    created TEXT NOT NULL,
    expires TEXT,
    revoked TEXT,
    models  TEXT
)
"""
_RIGHTS = "role, labels, kind, policy, quotas, priority, strict, rights.models"
_BUSY_S = 5.0


@dataclass(frozen=True, slots=True)
class Key:
    """A key that was presented and is valid, or an entry of the list.

    Args:
        name: of the person or program that has it.
        models: the models that it may use; None for all.
        expires: when it ends, in UTC; None for never.
        is_revoked: whether it was revoked.
        rights: what it may do beyond that.
        id: public: the middle part of the key.
        account: id of the first key of its owner, which stays when a key is rotated.
        created: when it was granted, in UTC.
    """

    name: str
    models: frozenset[str] | None
    expires: datetime | None
    is_revoked: bool = False
    rights: Rights = field(default_factory=Rights)
    id: str = ""
    account: str = ""
    created: datetime | None = None

    def may_see(self, model: str) -> bool:
        """Whether this key may know of that model; never with a restriction that this version does not enforce."""
        return self.rights.is_enforced and (self.models is None or model in self.models)

    def may_use(self, model: str) -> bool:
        """Whether this key may send requests to that model."""
        return self.may_see(model) and self.rights.may_chat

    def is_valid(self, now: datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return not self.is_revoked and (self.expires is None or self.expires > now)


class AccessStore:
    """The keys of one host. Every call sees what other processes have changed.

    Args:
        path: of the database; created with mode 0600 where it is missing.
        is_read_only: for a process that must not change anything; then nothing is created.
    """

    def __init__(self, path: Path, *, is_read_only: bool = False) -> None:
        self._path, self._mode = path, "ro" if is_read_only else "rw"
        self._kept: tuple[FileState, dict[str, tuple[Any, ...]]] | None = None
        if is_read_only:
            return
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        with self._open() as database:
            database.execute(_SCHEMA)
            database.execute(rights_table.SCHEMA)
            database.execute(key_rotation.SCHEMA)

    def grant(
        self,
        name: str,
        now: datetime,
        *,
        models: frozenset[str] | None = None,
        expires: datetime | None = None,
        key: str | None = None,
        rights: Rights | None = None,
    ) -> str:
        """Add a key.

        Args:
            name: of the person or program that gets it.
            now: the clock, in UTC.
            models: the models that it may use; None for all.
            expires: when it ends, in UTC; None for never.
            key: a key from `new_key`; None creates one.
            rights: what it may do beyond that; None for what every key may do.

        Returns:
            The key. It is stored nowhere: the caller must store it.

        Raises:
            UsageError: the name is malformed or taken.
        """
        if not _NAME.match(name):
            raise UsageError(
                "access.name", name, expected="letters, digits, . _ @ -, at most 64", found=repr(name)[:80]
            )
        key = key or new_key()
        match = _KEY.match(key)
        assert match is not None  # made by new_key
        rights = rights or Rights()
        listed = frozenset() if rights.restrictions else models
        row = (
            name,
            match[1],
            _hash(match[2]),
            now.strftime(_TIME),
            expires.astimezone(timezone.utc).strftime(_TIME) if expires else None,
            json.dumps(sorted(listed)) if listed is not None else None,
        )
        with self._open() as database:
            try:
                database.execute(
                    "INSERT INTO keys (name, id, sha256, created, expires, models) VALUES (?, ?, ?, ?, ?, ?)", row
                )
                if rights.restrictions:
                    database.execute(
                        "INSERT INTO rights VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        rights_table.to_row(match[1], rights, models),
                    )
            except sqlite3.IntegrityError:
                raise UsageError(
                    "access.taken", name, expected="a new name", found="a key of that name", hint="choose another name"
                ) from None
        return key

    def revoke(self, name: str, now: datetime) -> bool:
        """Revoke a key for good, with those that it has replaced and that still count.

        Returns:
            False when there is none of that name, or all were revoked before.
        """
        with self._open() as database:
            return key_rotation.revoke(database, name, now.strftime(_TIME))

    def rotate(
        self, name: str, now: datetime, *, overlap: timedelta = timedelta(0), expires: datetime | None = None
    ) -> str:
        """Replace a key by a new one of the same name, account and rights. The old one ends.

        Args:
            name: of the key.
            now: the clock, in UTC.
            overlap: how long the old key still counts.
            expires: when the new key ends, in UTC; None for when the old one was to end.

        Returns:
            The new key. It is stored nowhere: the caller must store it.

        Raises:
            UsageError: there is no key of that name, it was revoked, or the new one would have ended already.
        """
        key = new_key()
        match = _KEY.match(key)
        assert match is not None  # made by new_key
        times = key_rotation.RotationTimes(now, now + overlap, expires)
        with self._open() as database:
            key_rotation.rotate(database, name, match[1], _hash(match[2]), times)
        return key

    def find(self, name: str) -> Key | None:
        """Find the entry of a name, valid or not; None where there is none."""
        with self._open() as database:
            row = next(iter(_select(database, "WHERE keys.name = ?", name)), None)
        return None if row is None else _entry(*row[1:])

    def valid(self, ids: Iterable[str], now: datetime) -> frozenset[str]:
        """Those of the ids whose keys are valid now."""
        rows = self._rows()
        keys = (_entry(*rows[key_id][1:]) for key_id in ids if key_id in rows)
        return frozenset(key.id for key in keys if key.is_valid(now))

    def list(self) -> tuple[Key, ...]:
        """List all keys that were ever granted, by name."""
        with self._open() as database:
            rows = _select(database, "ORDER BY name")
        return tuple(_entry(*row[1:]) for row in rows)

    def check(self, presented: str, now: datetime) -> Key | None:
        """Find the key that was presented, if it is valid now; else None.

        Args:
            presented: untrusted.
            now: the clock, in UTC.
        """
        match = _KEY.match(presented)
        key_id, secret = (match[1], match[2]) if match else ("", presented[:200])
        row = self._rows().get(key_id)
        is_same = hmac.compare_digest(_hash(secret), row[0] if row else "0" * 64)
        if row is None or not is_same:
            return None
        key = _entry(*row[1:])
        return key if key.is_valid(now) else None

    def _rows(self) -> dict[str, tuple[Any, ...]]:
        """Every row, by id. Requests ask all the time: the file is opened only where it has changed."""
        # Two threads ask: one of them may replace what is kept between two looks at it.
        state, kept = self._settled_state(), self._kept
        if state is not None and kept is not None and kept[0] == state:
            return kept[1]
        with self._open() as database:
            rows = {row[1]: row for row in _select(database, "")}
        self._kept = None if state is None else (state, rows)
        return rows

    def _settled_state(self) -> FileState | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return file_state(status) if is_settled(status) else None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        name = f"{self._path.absolute().as_uri()}?mode={self._mode}"
        try:
            with closing(sqlite3.connect(name, uri=True, timeout=_BUSY_S)) as database, database:
                if self._mode == "ro" and is_cut_off(database, self._path):
                    with closing(open_rolled_back(self._path)) as rolled_back:
                        yield rolled_back
                    return
                yield database
        except sqlite3.Error as error:
            raise _unusable(self._path, str(error), may_write=self._mode == "rw") from error


def _select(database: sqlite3.Connection, which: str, *values: str) -> list[tuple[Any, ...]]:
    # A database that only older releases have opened lacks tables.
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    columns = "keys.sha256, keys.id, keys.name, keys.models, keys.created, keys.expires, keys.revoked"
    joined = "keys"
    if "accounts" in tables:
        columns, joined = f"{columns}, accounts.account", f"{joined} LEFT JOIN accounts ON accounts.key = keys.id"
    else:
        columns = f"{columns}, NULL"
    if "rights" in tables:
        columns, joined = f"{columns}, rights.key, {_RIGHTS}", f"{joined} LEFT JOIN rights ON rights.key = keys.id"
    return database.execute(f"SELECT {columns} FROM {joined} {which}", values).fetchall()


def _unusable(path: Path, found: str, *, may_write: bool) -> ApplianceError | OSError:
    if "disk is full" in found:
        return OSError(errno.ENOSPC, found, str(path))
    if (may_write and "readonly" in found) or not os.access(path, os.R_OK):
        return OSError(errno.EACCES, found, str(path))
    if "locked" in found:
        return BusyError(
            "access.busy",
            str(path),
            expected=f"nobody else to change the keys for {_BUSY_S:.0f} s",
            found=found,
            hint="run the same command again",
        )
    return DamagedError(
        "access.damaged",
        str(path),
        expected="the keys that this host granted",
        found=found,
        hint="restore this file from a backup, or remove it: every key then ends, and the next start grants a new one",
    )


def new_key() -> str:
    """Create a key with a random id and 256 random bits."""
    return f"ak-{secrets.token_hex(6)}-{secrets.token_urlsafe(32)}"


def ensure_default(store: AccessStore, key_file: Path, now: datetime, on_event: OnEvent = ignore) -> Path | None:
    """On a host where no key was ever granted, grant one named `default` and write it to a file.

    Args:
        store: the keys.
        key_file: receives the key, with mode 0600; in a folder that exists.
        now: the clock, in UTC.
        on_event: gets the event of that key.

    Returns:
        The file, if it exists and its key is valid; else None.
    """
    if not store.list():
        # The file comes first. After a crash in between, the next start writes it again; a granted key without a file
        # would be lost, and no other would ever be granted.
        key = new_key()
        write_file(key_file, f"{key}\n".encode(), 0o600)
        store.grant("default", now, key=key)
        key_id = key.split("-")[1]
        on_event(Event(ACCESS_GRANTED, {"key": key_id, "account": key_id, "role": "user"}))
        return key_file
    try:
        presented = key_file.read_text("ascii", "replace").strip()
    except OSError:
        return None
    return key_file if store.check(presented, now) else None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _entry(
    key_id: str,
    name: str,
    models: str | None,
    created: str,
    expires: str | None,
    revoked: str | None,
    account: str | None,
    *more: Any,
) -> Key:
    allowed = None if models is None else frozenset(json.loads(models))
    rights = Rights()
    if more and more[0] is not None:
        try:
            rights, allowed = rights_table.from_row(more[1:])
        except (ValueError, TypeError):
            # Written by a later version: what it means is not known here.
            allowed = frozenset()
    return Key(
        name,
        allowed,
        None if expires is None else _moment(expires),
        revoked is not None,
        rights,
        key_id,
        account or key_id,
        _moment(created),
    )


def _moment(text: str) -> datetime:
    return datetime.strptime(text, _TIME).replace(tzinfo=timezone.utc)
