"""What a file for support may hold: every fact by its path, each with its grammar.

Owns the allow-list. A fact that is not in it, or whose value breaks its grammar, does not leave the host.

Rules (threat T129):
- numbers, yes or no, times and digests are safe by their form; words are those of a fixed list;
- a version is the one text that people choose: it holds no space, no slash and no letter outside ASCII;
- no name of a machine, person, model, bundle, site or file is in the list, and no text of a log.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from appliance.host.engine.crashes import CRASHED
from appliance.host.engine.state import (
    BYTES_DIFFER,
    CANNOT_START,
    NO_ANSWER,
    NOT_STARTED,
    RESTARTING,
    SERVING,
    STARTING,
    STOPPED,
    UNIT_STOPPED,
    UNLOADED,
    UNREADABLE,
)
from appliance.host.machine.cpu import FLAGS
from signing.roles import STATUSES
from signing.strictjson import Json

MAX_BYTES = 256 << 10
OTHER = "other"
"""Stands for a word that is not in its list."""
_SYSTEMS = ("debian-12", "debian-13", "ubuntu-22.04", "ubuntu-24.04")
_FILE_SYSTEMS = ("ext4", "ext3", "ext2", "xfs", "btrfs", "f2fs", "tmpfs", "overlay", "zfs", "vfat", "exfat", "nfs4")
_STATUSES = (STARTING, SERVING, RESTARTING, STOPPED, UNLOADED)
_REASONS = ("", BYTES_DIFFER, UNREADABLE, NO_ANSWER, NOT_STARTED, UNIT_STOPPED, CANNOT_START, CRASHED)
_STEPS = (
    *("plan", "preflight", "import", "packages", "bootstrap", "environment", "runtime", "render", "candidate"),
    *("settle", "save", "stage", "way-back", "switch", "gate", "trying", "commit", "config", "return", "rollback"),
    *("uninstall", "gc", "restore", "floors", "receipts", "keys", "audit", "site", "restored", "forget"),
)


@dataclass(frozen=True, slots=True)
class Fact:
    """The grammar of one fact.

    Args:
        pattern: of a text, from its start to its end; None where it is no text.
        words: the texts that are allowed; another one becomes `other`. Empty where a pattern decides.
        is_number, is_flag: whether it is a whole number from 0, or true or false.
        is_version: whether people choose the text: such a text is compared with the private words of the host.
    """

    pattern: re.Pattern[str] | None = None
    words: tuple[str, ...] = ()
    is_number: bool = False
    is_flag: bool = False
    is_version: bool = False


NUMBER, FLAG = Fact(is_number=True), Fact(is_flag=True)
VERSION = Fact(re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~_-]{0,60}\Z"), is_version=True)
PLAIN_VERSION = Fact(re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){0,3}\Z"))
DIGEST = Fact(re.compile(r"[0-9a-f]{64}\Z"))
TIME = Fact(re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z"))
CODE = Fact(re.compile(r"[a-z]{1,24}(\.[a-z0-9-]{1,40}){1,2}\Z"))
QUANTISATION = Fact(re.compile(r"[A-Z][A-Z0-9_]{1,11}\Z"))


def _words(*words: str) -> Fact:
    return Fact(words=(*words, OTHER))


FACTS: dict[str, Fact] = {
    "format": NUMBER,
    "time": TIME,
    "program.version": VERSION,
    "program.python": PLAIN_VERSION,
    "program.is_system": FLAG,
    "program.is_root": FLAG,
    "machine.os": _words(*_SYSTEMS),
    "machine.arch": _words("x86_64", "aarch64"),
    "machine.kernel": PLAIN_VERSION,
    "machine.systemd": PLAIN_VERSION,
    "machine.glibc": PLAIN_VERSION,
    "machine.cores": NUMBER,
    "machine.allowed_cores": NUMBER,
    "machine.quota_millicores": NUMBER,
    "machine.engine_threads": NUMBER,
    "machine.variants[]": _words(*FLAGS),
    "machine.ram_bytes": NUMBER,
    "machine.available_bytes": NUMBER,
    "machine.swap_bytes": NUMBER,
    "machine.limit_bytes": NUMBER,
    "machine.graphics_processors": NUMBER,
    "machine.isolation": _words("netns", "none"),
    "machine.cgroup_version": NUMBER,
    "machine.clock_is_synchronised": FLAG,
    "disks[].holds": _words("releases", "state", "temporary files"),
    "disks[].filesystem": _words(*_FILE_SYSTEMS),
    "disks[].size_bytes": NUMBER,
    "disks[].free_bytes": NUMBER,
    "disks[].free_inodes": NUMBER,
    "disks[].is_read_only": FLAG,
    "release.version": VERSION,
    "release.manifest": DIGEST,
    "release.target_status": _words(*STATUSES),
    "release.cpu_variant": _words(*FLAGS),
    "release.tokens_per_s": NUMBER,
    "release.isolation": _words("netns", "none"),
    "release.python": PLAIN_VERSION,
    "release.is_development": FLAG,
    "release.is_overridden": FLAG,
    "release.proved_time": TIME,
    "release.expires": TIME,
    "release.signers": NUMBER,
    "release.threshold": NUMBER,
    "release.models_were_compared": FLAG,
    "floors.root": NUMBER,
    "floors.targets": NUMBER,
    "floors.snapshot": NUMBER,
    "floors.timestamp": NUMBER,
    "floors.time": TIME,
    "receipts.counter": NUMBER,
    "life.state": _words("good", "trying", "unfinished", "at work", "unseen"),
    "life.op": _words("install", "rollback", "uninstall", "restore"),
    "life.phase": _words("switching", "trying", "removing", "restoring"),
    "life.since": TIME,
    "life.boots": NUMBER,
    "life.note": CODE,
    "life.has_previous": FLAG,
    "releases": NUMBER,
    "models[].quantisation": QUANTISATION,
    "models[].size_bytes": NUMBER,
    "models[].context": NUMBER,
    "models[].is_embedding": FLAG,
    "engines[].status": _words(*_STATUSES),
    "engines[].reason": _words(*_REASONS),
    "engines[].level": _words("E1", "E2", "E4", ""),
    "engines[].isolation": _words("netns", "none", ""),
    "services[].kind": _words("engine", "gateway", "socket", "egress", "trial", "return", "recover"),
    "services[].active": _words("active", "activating", "deactivating", "reloading", "inactive", "failed", "unknown"),
    "services[].enabled": _words("enabled", "disabled", "static", "masked", ""),
    "services[].exit_code": NUMBER,
    "services[].drop_ins": NUMBER,
    "site.is_applied": FLAG,
    "site.is_loopback_default": FLAG,
    "site.port": NUMBER,
    "site.slots": NUMBER,
    "site.context": NUMBER,
    "site.has_name": FLAG,
    "site.keep": NUMBER,
    "egress.services": NUMBER,
    "egress.others": NUMBER,
    "keys.count": NUMBER,
    "problems[].section": _words("release", "site", "machine", "life", "floors", "services", "keys"),
    "problems[].code": CODE,
    "problems[].exit_code": NUMBER,
    "journal[].time": TIME,
    "journal[].step": _words(*_STEPS),
    "journal[].state": _words("started", "done", "failed"),
    "journal[].is_current": FLAG,
    "journal[].code": CODE,
    "withheld[]": Fact(),
}
"""Every fact by its path; `[]` stands for each member of a list."""
FIXED_TEXT = frozenset(
    {part.removesuffix("[]") for path in FACTS for part in path.split(".")}
    | {path.replace("[]", "") for path in FACTS}
    | {word for fact in FACTS.values() for word in fact.words}
)
"""Texts of this module: they are in every such file, whatever the host is called."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """The facts that may leave, and the paths of those that may not."""

    value: dict[str, Json]
    withheld: tuple[str, ...]


def admit(gathered: dict[str, Any]) -> Admitted:
    """Keep of what was gathered only what the allow-list names, in the form that it names.

    Args:
        gathered: nested mappings and lists; None stands for what is unknown, and is left out.
    """
    withheld: list[str] = []
    value = _admit(gathered, "", withheld)
    assert isinstance(value, dict)
    return Admitted(value, tuple(dict.fromkeys(withheld)))


def _admit(value: Any, path: str, withheld: list[str]) -> Any:
    if isinstance(value, dict):
        members = {name: _admit(one, f"{path}.{name}".lstrip("."), withheld) for name, one in value.items()}
        return {name: one for name, one in members.items() if one is not None and one != {}}
    if isinstance(value, (list, tuple)):
        items = [_admit(one, f"{path}[]", withheld) for one in value]
        return [one for one in items if one is not None]
    fact = FACTS.get(path)
    if value is None or fact is None:
        # The path of an unknown fact could itself be a name: it is not written, either.
        return None
    if fact.words and isinstance(value, str):
        return value if value in fact.words else OTHER
    is_right = (
        (fact.is_number and type(value) is int and 0 <= value < 1 << 63)
        or (fact.is_flag and type(value) is bool)
        or (fact.pattern is not None and isinstance(value, str) and fact.pattern.match(value) is not None)
    )
    if not is_right:
        withheld.append(path.replace("[]", ""))
    return value if is_right else None
