"""What a field of a person's file may hold: numbers, words, addresses and lists of them.

Owns the kinds of values; each gives its check, its text for people, and its JSON Schema, which agree.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class WholeNumber:
    """A whole number within bounds, both included."""

    minimum: int
    maximum: int

    @property
    def expected(self) -> str:
        """The allowed values, for people."""
        return f"{self.minimum} to {self.maximum}"

    def accepts(self, value: object) -> bool:
        """Whether a value is one of these; true and false are no numbers."""
        return type(value) is int and self.minimum <= value <= self.maximum

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the values."""
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}


@dataclass(frozen=True, slots=True)
class Word:
    """A text that a pattern matches from its start to its end.

    Args:
        pattern: of the whole text.
        expected: the allowed values, for people.
    """

    pattern: re.Pattern[str]
    expected: str

    def accepts(self, value: object) -> bool:
        """Whether a value is one of these."""
        return isinstance(value, str) and self.pattern.fullmatch(value) is not None

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the values."""
        inner = self.pattern.pattern.removeprefix("^").removesuffix("$").removesuffix(r"\Z")
        return {"type": "string", "pattern": f"^{inner}$"}


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address of this machine, version 4 or 6, without a zone; 0.0.0.0 and :: are all addresses of it."""

    @property
    def expected(self) -> str:
        """The allowed values, for people."""
        return "an IP address such as 127.0.0.1 or 0.0.0.0"

    def accepts(self, value: object) -> bool:
        """Whether a value is one of these."""
        try:
            return isinstance(value, str) and "%" not in value and not ipaddress.ip_address(value).is_multicast
        except ValueError:
            return False

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the values."""
        return {"type": "string", "pattern": r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)$"}


@dataclass(frozen=True, slots=True)
class Texts:
    """A list of texts, each of one kind and each once.

    Args:
        kind: of each text.
        maximum: how many there may be.
    """

    kind: Word
    maximum: int

    @property
    def expected(self) -> str:
        """The allowed values, for people."""
        return f"a list of at most {self.maximum}, each once: {self.kind.expected}"

    def accepts(self, value: object) -> bool:
        """Whether a value is one of these."""
        if not isinstance(value, list) or len(value) > self.maximum or not all(map(self.kind.accepts, value)):
            return False
        return len(set(value)) == len(value)

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the values."""
        return {"type": "array", "items": self.kind.schema(), "maxItems": self.maximum, "uniqueItems": True}


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def expected(self) -> str:
        """The allowed values, for people."""
        return f"one of {', '.join(self.words)}"

    def accepts(self, value: object) -> bool:
        """Whether a value is one of these."""
        return isinstance(value, str) and value in self.words

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the values."""
        return {"enum": list(self.words)}


class FieldKind(Protocol):
    """The allowed values of a field."""

    @property
    def expected(self) -> str:
        """The allowed values, for people."""

    def accepts(self, value: object) -> bool:
        """Whether a value is one of these."""

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the values."""


@dataclass(frozen=True, slots=True)
class YesNo:
    """True or false."""

    @property
    def expected(self) -> str:
        """The allowed values, for people."""
        return "true or false"

    def accepts(self, value: object) -> bool:
        """Whether a value is one of these."""
        return isinstance(value, bool)

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the values."""
        return {"type": "boolean"}
