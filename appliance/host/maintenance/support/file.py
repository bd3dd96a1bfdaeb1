"""The file for support: one JSON file about a host, without a name of a machine, a person or a key (threat T129).

Owns the one writer of its bytes. Nothing else makes such a file.

Rules:
- what was gathered passes the allow-list of `grammar`; the rest is left out, and its paths are listed;
- the finished bytes are then searched for the private words of the host: one of them ends the writing;
- at most 256 KiB.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.host.maintenance.support.grammar import FACTS, FIXED_TEXT, MAX_BYTES, admit
from appliance.host.maintenance.support.private_words import PrivateWord, check_private
from signing.errors import ApplianceError, UsageError


@dataclass(frozen=True, slots=True)
class SupportFile:
    """A file for support that may leave the host.

    Args:
        data: its bytes.
        value: what they hold.
        withheld: paths of facts whose value broke the grammar.
    """

    data: bytes
    value: dict[str, Any]
    withheld: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Every fact as a line `path  value`, for the person who decides whether it leaves."""
        yield from _lines(self.value, "")


def write_support(gathered: dict[str, Any], words: Collection[PrivateWord], without: Sequence[str] = ()) -> SupportFile:
    """Make the file of what was gathered.

    Args:
        gathered: by `gather_support`.
        words: the private words of the host.
        without: paths of facts that a person leaves out.

    Raises:
        UsageError: a path of `without` names no fact.
        NotTrustedError: a private word stands in it.
        ApplianceError: it is larger than 256 KiB.
    """
    known = {path.replace("[]", "") for path in FACTS}
    if wrong := [path for path in without if path not in known]:
        raise UsageError(
            "support.unknown-fact",
            wrong[0],
            expected="the path of a fact, as this command shows it",
            found="no such fact",
            hint="appliance support --list shows all of them",
        )
    admitted = admit(gathered)
    value = _leave_out(admitted.value, "", without)
    value["withheld"] = sorted({*admitted.withheld, *without})
    data = json.dumps(value, indent=1, sort_keys=True).encode("ascii") + b"\n"
    if len(data) > MAX_BYTES:
        raise ApplianceError(
            "support.too-large",
            "support",
            expected=f"at most {MAX_BYTES} bytes",
            found=str(len(data)),
            hint="--without journal.time",
        )
    check_private(data, words, FIXED_TEXT)
    return SupportFile(data, value, admitted.withheld)


def fact_lines() -> Iterator[str]:
    """Every fact that such a file may hold, with its grammar, for people."""
    for path, fact in FACTS.items():
        if fact.words:
            form = f"one of: {', '.join(word or 'nothing' for word in fact.words)}"
        elif fact.pattern is not None:
            form = f"text: {fact.pattern.pattern}"
        else:
            form = "a whole number" if fact.is_number else "true or false" if fact.is_flag else "paths of this list"
        yield f"{path.replace('[]', '')}  {form}"


def _leave_out(value: Any, path: str, without: Sequence[str]) -> Any:
    if isinstance(value, dict):
        inner = {name: f"{path}.{name}".lstrip(".") for name in value}
        return {
            name: _leave_out(one, inner[name], without) for name, one in value.items() if inner[name] not in without
        }
    if isinstance(value, list):
        return [_leave_out(one, path, without) for one in value if path not in without]
    return value


def _lines(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _lines(one, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for one in value:
            members = ", ".join(f"{name} {_text(inner)}" for name, inner in one.items())
            yield f"{path}  {members}"
    elif isinstance(value, list):
        yield f"{path}  {' '.join(map(_text, value)) or 'none'}"
    else:
        yield f"{path}  {_text(value)}"


def _text(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value) or "none"
