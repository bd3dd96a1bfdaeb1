"""Reads the fields of a JSON object by type; what is not of that type is refused, with the place named.

Owns the step from strict JSON to typed values. What fields there are is for `contents_json` and `format_2_json`.
"""

from __future__ import annotations

import datetime
import re
from typing import Any, Callable, TypeVar

from signing.digest import Digest, parse_digest
from signing.errors import NotTrustedError

T = TypeVar("T")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")


class JsonObject:
    """A JSON object that gives its fields by type, or refuses, naming the place.

    Args:
        value: untrusted.
        subject: where it stands, for errors.
    """

    def __init__(self, value: object, subject: str) -> None:
        if not isinstance(value, dict):
            raise refuse(subject, "an object", type(value).__name__)
        self.value: dict[str, Any] = value
        self.subject = subject

    def only(self, names: set[str], optional: set[str] | None = None) -> None:
        """Refuse an unknown field, and a missing one that is not optional."""
        missing = sorted(names - (optional or set()) - set(self.value))
        extra = sorted(set(self.value) - names)
        if missing or extra:
            raise refuse(self.subject, f"fields {', '.join(sorted(names))}", f"missing {missing}, unknown {extra}")

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.value.get(name) is not None

    def text(self, name: str) -> str:
        """A text of 1 to 1024 printable characters."""
        item = self.value.get(name)
        if not isinstance(item, str) or not 0 < len(item) <= 1024 or not item.isprintable():
            raise refuse(f"{self.subject} {name}", "1 to 1024 printable characters", repr(item)[:80])
        return item

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of such texts."""
        items = self.list(name)
        return tuple(JsonObject({name: item}, self.subject).text(name) for item in items)

    def integer(self, name: str, low: int = 0, high: int | None = None) -> int:
        """An integer of at least `low`, and at most `high`."""
        item = self.value.get(name)
        if type(item) is not int or item < low or (high is not None and item > high):
            most = "" if high is None else f" and at most {high}"
            raise refuse(f"{self.subject} {name}", f"an integer of at least {low}{most}", repr(item)[:80])
        return item

    def flag(self, name: str) -> bool:
        """True or false."""
        item = self.value.get(name)
        if not isinstance(item, bool):
            raise refuse(f"{self.subject} {name}", "true or false", repr(item)[:80])
        return item

    def one_of(self, name: str, allowed: tuple[T, ...]) -> T:
        """One of the given values, of its type."""
        item = self.value.get(name)
        for choice in allowed:
            if type(item) is type(choice) and item == choice:
                return choice
        raise refuse(f"{self.subject} {name}", f"one of {', '.join(map(str, allowed))}", repr(item)[:80])

    def digest(self, name: str) -> Digest:
        """A SHA-256 of 64 lowercase hexadecimal characters."""
        return parse_digest(self.value.get(name), f"{self.subject} {name}")

    def list(self, name: str) -> list[Any]:
        """A list of anything."""
        item = self.value.get(name)
        if not isinstance(item, list):
            raise refuse(f"{self.subject} {name}", "a list", type(item).__name__)
        return item

    def child(self, name: str) -> JsonObject:
        """An object below this one."""
        return JsonObject(self.value.get(name), f"{self.subject} {name}")

    def each(self, name: str, read: Callable[[JsonObject], T]) -> tuple[T, ...]:
        """A list of objects, each read by the same function."""
        return tuple(read(JsonObject(item, f"{self.subject} {name}[{at}]")) for at, item in enumerate(self.list(name)))


def is_day(value: object) -> bool:
    """Whether a value is a day of the calendar, as `YYYY-MM-DD`."""
    try:
        return isinstance(value, str) and bool(_DAY.match(value) and datetime.date.fromisoformat(value))
    except ValueError:
        return False


def refuse(subject: str, expected: str, found: str) -> NotTrustedError:
    """The error of a value that breaks a rule of `contents.json`."""
    return NotTrustedError("contents.refused", subject, expected=expected, found=found)
