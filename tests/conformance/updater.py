"""A TUF client around our walk: it downloads, keeps what was accepted, and judges expiry by the clock.

The product does none of the three (`signing.chain`: bytes come through a callback, time is what root and targets
prove); everything else of the workflow (TUF specification 1.0.34, section 5) is the product's. When the walk asks for a
file it has accepted the one before: that is when it is kept (5.3.8, 5.4.5, 5.5.7, 5.6.6).
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from signing.chain import walk
from signing.digest import sha256
from signing.errors import NotTrustedError
from signing.floors import Floors
from signing.roles import FileMeta, Pointer, Root, Targets
from signing.verify import Chain, verify
from tests.conformance import rules, web
from tests.conformance.store import Store, write_whole

POINTS_TO = {"timestamp": "snapshot.json", "snapshot": "targets.json"}


class NothingNew(Exception):
    """The repository still has the timestamp that was accepted before (5.4.3.1)."""


def refresh(store: Store, url: str, now: datetime) -> None:
    """Bring the store up to the newest metadata below a URL, as far as it is valid.

    Raises:
        NotTrustedError, OSError: from there on it is not; what came before is kept.
    """
    try:
        _update(store, Source(store, url, now))
    except NothingNew:
        _update(store, Source(store, url, now, is_known=True))


def download(store: Store, target: str, base_url: str, folder: Path, now: datetime) -> Path:
    """Fetch a target into a folder through the product's own function (5.7).

    A file that has its bytes already is neither fetched nor written again: its time stays that of the download.
    """
    path = folder / quote(target, safe="")
    is_consistent = _is_consistent(store)
    cached = path.read_bytes() if path.is_file() else None

    def read_target(name: str, most: int) -> bytes | None:
        if cached is not None and sha256(cached) == name.rpartition("/")[2].partition(".")[0]:
            return cached
        return web.fetch(base_url, name if is_consistent else target, most)

    def read(name: str, _most: int) -> bytes | None:
        role = _role(name)
        return None if role == "root" else store.read(role)

    chain = Chain(store.root(), read, read_target, rules=rules)
    verified = verify(chain, target, bytes, rules.AnyFloors(), now).value
    if verified != cached:
        write_whole(path, verified)
    return path


def _update(store: Store, source: Source) -> None:
    walk(store.root(), source.read, _floors(store), rules=rules)
    source.accept()


def _floors(store: Store) -> Floors:
    root, _ = rules.parse_root(store.root(), "root.json")
    timestamp, snapshot = (_stored(store, root, role) for role in ("timestamp", "snapshot"))
    return rules.AnyFloors(
        root=root.version,
        timestamp=timestamp.version if timestamp else 0,
        snapshot=timestamp.file.version if isinstance(timestamp, Pointer) else 0,
        targets=snapshot.file.version if isinstance(snapshot, Pointer) else 0,
    )


class Source:
    """Gives the walk what is stored where that is still the right file, else what the repository has.

    Args:
        store: where accepted files are kept.
        url: of the metadata.
        now: when the update began.
        is_known: whether root and timestamp were found to be those in the store.
    """

    def __init__(self, store: Store, url: str, now: datetime, is_known: bool = False) -> None:
        self.store, self.url, self.now, self.is_known = store, url, now, is_known
        self.root, _ = rules.parse_root(store.root(), "root.json")
        self.next: FileMeta | None = None
        self.asked: tuple[str, bytes] | None = None

    def read(self, name: str, most: int) -> bytes | None:
        """What the walk asked for."""
        self.accept()
        role = _role(name)
        if role == "timestamp" and rules.is_over(self.root.expires, self.now):  # 5.3.10
            raise _expired("root", self.root.expires)
        data = self._root(name, most) if role == "root" else self._file(role, name, most)
        self.asked = None if data is None else (role, data)
        return data

    def accept(self) -> None:
        """Keep what was asked for last: the walk has accepted it."""
        if self.asked is None:
            return
        (role, data), self.asked = self.asked, None
        if role == "root":
            self._accept_root(data)
            return
        parsed = _parse(data, self.root, role)
        if role == "timestamp" and not self.is_known:
            stored = _stored(self.store, self.root, role)
            if stored and stored.version == parsed.version:  # 5.4.3.1
                raise NothingNew
        if rules.is_over(parsed.expires, self.now):  # 5.4.4, 5.5.6, 5.6.5
            raise _expired(role, parsed.expires)
        self.store.keep(role, data)
        self.next = parsed.file if isinstance(parsed, Pointer) else None

    def _accept_root(self, data: bytes) -> None:
        old, (self.root, _) = self.root, rules.parse_root(data, "root.json")
        self.store.keep("root", data)
        if any(set(old.roles[role].keys) != set(self.root.roles[role].keys) for role in POINTS_TO):  # 5.3.11
            for role in POINTS_TO:
                self.store.forget(role)

    def _root(self, name: str, most: int) -> bytes | None:
        # Copies of roots that are trusted already are not asked for.
        is_newer = int(name.partition(".")[0]) > self.root.version
        return web.fetch(self.url, name, most) if is_newer and not self.is_known else None

    def _file(self, role: str, name: str, most: int) -> bytes | None:
        if self.is_known and role == "timestamp":
            return self.store.read(role)
        if self.next is not None:
            stored, data = _stored(self.store, self.root, role), self.store.read(role)
            if data is not None and stored and stored.version == self.next.version and self.next.covers(data):
                return data
            most = min(most, self.next.length) if self.next.length != rules.ANY_LENGTH else most
        is_named = role == "timestamp" or _is_consistent(self.store)  # 5.3.12
        return web.fetch(self.url, name if is_named else f"{role}.json", most)


def _stored(store: Store, root: Root, role: str) -> Pointer | Targets | None:
    data = store.read(role)
    try:
        return None if data is None else _parse(data, root, role)
    except NotTrustedError:
        return None  # accepted under keys that the root does not name any more


def _parse(data: bytes, root: Root, role: str) -> Pointer | Targets:
    if role == "targets":
        return rules.parse_targets(data, root.roles[role], role)[0]
    return rules.parse_pointer(data, root.roles[role], role, POINTS_TO[role], role)


def _is_consistent(store: Store) -> bool:
    return rules.parse_root(store.root(), "root.json")[1].signed.get("consistent_snapshot") is True


def _role(name: str) -> str:
    return name.removesuffix(".json").rpartition(".")[2]


def _expired(role: str, expires: str) -> NotTrustedError:
    return NotTrustedError("metadata.expired", f"{role}.json", expected="a time that lies ahead", found=expires)
