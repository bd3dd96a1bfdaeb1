"""What the commands of `appliance access` share: the store of keys, times, and a key as an answer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from appliance.events import Event, Value
from appliance.host.layout.prefix import Prefix
from appliance.host.process.journal import command_sink
from appliance.host.site.api_keys import AccessStore, Key
from appliance.host.site.key_rotation import unknown_name
from signing.errors import UsageError

ALL_MODELS = "all models"
_SPAN = re.compile(r"([1-9][0-9]{0,3})([mhd])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_TIMES = ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ")


def open_host(prefix: Path | None) -> Prefix:
    """The host of a command, which has keys. Each command opens them for writing: that repairs what a power cut left.

    Raises:
        UsageError: nothing was ever installed there.
    """
    host = Prefix.at(prefix or Path("/"))
    if not host.access.is_file():
        raise UsageError(
            "access.none",
            str(host.root),
            expected="a host with keys",
            found=f"no {host.access.relative_to(host.root)}",
            hint="install a bundle first, or check --prefix",
        )
    return host


def read_key(store: AccessStore, name: str) -> Key:
    """The key of a name.

    Raises:
        UsageError: there is none.
    """
    key = store.find(name)
    if key is None:
        raise unknown_name(name)
    return key


def parse_span(text: str, option: str) -> timedelta:
    """Parse a span of time: `90m`, `12h` or `30d`.

    Raises:
        UsageError: it is none.
    """
    match = _SPAN.fullmatch(text)
    if match is None:
        raise _wrong_time(option, text, "minutes, hours or days, such as 90m, 12h or 30d")
    return int(match[1]) * _UNITS[match[2]]


def parse_end(text: str, now: datetime) -> datetime:
    """Parse when a key ends: a day or moment of UTC, or a span from now.

    Raises:
        UsageError: it is none, or over already.
    """
    end = now + parse_span(text, "--expires") if _SPAN.fullmatch(text) else _moment(text)
    if end is None:
        raise _wrong_time("--expires", text, "a day such as 2030-12-31, a moment of UTC, or 12h or 30d from now")
    if end <= now:
        raise _wrong_time("--expires", text, f"a time after {now:%Y-%m-%dT%H:%M:%SZ}")
    return end


def state_of(key: Key, now: datetime) -> str:
    """Whether a key counts, in a word."""
    if key.is_revoked:
        return "revoked"
    return "valid" if key.is_valid(now) else "expired"


def describe(key: Key, now: datetime) -> dict[str, Any]:
    """A key for programs; never the key itself."""
    return {
        "name": key.name,
        "id": key.id,
        "account": key.account,
        "state": state_of(key, now),
        "role": key.rights.role,
        "models": None if key.models is None else sorted(key.models),
        "quotas": dict(sorted(key.rights.quotas.items())),
        "priority": key.rights.priority,
        "created": None if key.created is None else format_time(key.created),
        "expires": None if key.expires is None else format_time(key.expires),
        "is_enforced": key.rights.is_enforced,
    }


def format_time(moment: datetime) -> str:
    """A moment of UTC, to the second."""
    return f"{moment.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def format_models(models: Iterable[str] | None) -> str:
    """The models of a key, for people."""
    return ALL_MODELS if models is None else ", ".join(sorted(models)) or "no model"


def format_quotas(key: Key) -> str:
    """The limits of a key, for people; empty where it has none."""
    words = {"tokens_per_day": "tokens a day", "concurrency": "at once"}
    found = [f"{limit} {words.get(name, name)}" for name, limit in sorted(key.rights.quotas.items())]
    return ", ".join(found + [f"priority {key.rights.priority}"] * bool(key.rights.priority))


def report(host: Prefix, kind: str, key: Key, **more: Value) -> None:
    """Send the event of a change."""
    command_sink(is_system=host.is_system)(Event(kind, {"key": key.id, "account": key.account, **more}))


def _moment(text: str) -> datetime | None:
    for form in _TIMES:
        try:
            return datetime.strptime(text, form).replace(tzinfo=timezone.utc)
        except ValueError:
            continue
    return None


def _wrong_time(option: str, text: str, expected: str) -> UsageError:
    return UsageError("access.time", option, expected=expected, found=text[:40], hint="give another value")
