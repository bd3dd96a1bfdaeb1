"""What the roles of a bundle's playbooks change on a host, as they declare it: for a plan, and for an uninstall.

Owns the format of `playbooks/roles/<role>/meta/effects.yml`, which is read without Ansible and without Jinja. The file
holds a list `effects`. Each item has these fields, and no others:

- `kind`: `file`, `folder`, `group`, `user` or `unit`;
- `name`: the absolute path, or the name of the group, user or unit;
- `file`: of a unit, where the role writes it. `appliance install` copies it to where systemd reads units;
- `mode`: of a file, folder or unit, four octal digits;
- `keep`: whether the role leaves a file alone that exists; else false;
- `when`: a variable of the play that must be true; `each`: one that is a list, with one effect for each `item`;
- `until`: what removes it: `release` (its release is removed), `uninstall`, or `purge` (`uninstall --purge`).

In a text `{{ appliance_x }}`, `{{ item }}` and `{{ item.x }}` stand for values of the play's variables, which
`appliance.host.playbook.ansible_run.variables` makes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from signing.errors import NotTrustedError

PATTERN = "roles/*/meta/effects.yml"
"""Where the declarations lie below the playbooks."""
MAX_BYTES = 64 << 10
FILE, FOLDER, GROUP, USER, UNIT = "file", "folder", "group", "user", "unit"
RELEASE, UNINSTALL, PURGE = "release", "uninstall", "purge"
_WRITTEN = (FILE, FOLDER, UNIT)
_FIELDS = frozenset({"kind", "name", "file", "mode", "keep", "when", "each", "until"})
_MARK = re.compile(r"\{\{ ([a-z_]+)(?:\.([a-z_]+))? \}\}")
_MODE = re.compile(r"0[0-7]{3}")


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing that a role makes or changes.

    Args:
        role: its name.
        kind: `file`, `folder`, `group`, `user` or `unit`.
        name: an absolute path, or the name of the group, user or unit.
        until: what removes it: `release`, `uninstall` or `purge`.
        mode: of what is written; 0 for a group or user.
        keep: whether it is written only where nothing is there.
        file: of a unit, where the role writes it; else empty.
    """

    role: str
    kind: str
    name: str
    until: str
    mode: int = 0
    keep: bool = False
    file: str = ""


def read_effect_files(playbooks: Path) -> dict[str, bytes]:
    """Read the declarations below a verified folder of playbooks, by their path below it."""
    return {str(path.relative_to(playbooks)): path.read_bytes() for path in sorted(playbooks.glob(PATTERN))}


def declared_effects(files: Mapping[str, bytes], variables: Mapping[str, Any]) -> tuple[Effect, ...]:
    """List what the roles would make on a host.

    Args:
        files: the declarations by their path below the playbooks, such as `roles/engine/meta/effects.yml`; verified.
        variables: of the play.

    Returns:
        The effects in the order of the paths; empty for the playbooks of a version that declares none.

    Raises:
        NotTrustedError: a declaration does not follow the format.
    """
    return tuple(effect for path, data in sorted(files.items()) for effect in _parse(path, data, variables))


def _parse(path: str, data: bytes, variables: Mapping[str, Any]) -> Iterator[Effect]:
    role = path.split("/")[1] if path.count("/") > 1 else path
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        value = yaml.safe_load(data)
        if not isinstance(value, dict) or set(value) != {"effects"} or not isinstance(value["effects"], list):
            raise ValueError("no list of effects")
        for number, item in enumerate(value["effects"], 1):
            yield from _expand(role, number, item, variables)
    except (yaml.YAMLError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotTrustedError(
            "effects.refused",
            path,
            expected="effects in the format of this program",
            found=" ".join(str(error).split())[:200],
            hint="this bundle was built wrongly, or for a newer program; ask its builder",
        ) from None


def _expand(role: str, number: int, item: Any, variables: Mapping[str, Any]) -> Iterator[Effect]:
    where = f"effect {number}"
    if not isinstance(item, dict) or not set(item) <= _FIELDS:
        raise ValueError(f"{where} has other fields than {', '.join(sorted(_FIELDS))}")
    kind, until, mode, keep = item.get("kind"), item.get("until"), item.get("mode", ""), item.get("keep", False)
    if kind not in (*_WRITTEN, GROUP, USER) or until not in (RELEASE, UNINSTALL, PURGE):
        raise ValueError(f"{where} has kind {kind!r} and until {until!r}")
    if (kind in _WRITTEN) != bool(isinstance(mode, str) and _MODE.fullmatch(mode)) or type(keep) is not bool:
        raise ValueError(f"{where} has mode {mode!r} and keep {keep!r}")
    if "when" in item and variables[item["when"]] is not True:
        return
    for one in variables[item["each"]] if "each" in item else (None,):
        values = {**variables, "item": one}
        name, file = _fill(item.get("name"), values), _fill(item.get("file", ""), values)
        if (kind == UNIT) != bool(file) or (kind in (FILE, FOLDER) and not name.startswith("/")) or not name:
            raise ValueError(f"{where} has name {name!r} and file {file!r}")
        yield Effect(role, str(kind), name, str(until), int(mode or "0", 8), keep, file)


def _fill(text: Any, values: Mapping[str, Any]) -> str:
    if not isinstance(text, str):
        raise ValueError(f"no text: {text!r}")
    filled = _MARK.sub(lambda found: _value(found[1], found[2], values), text)
    if "{{" in _MARK.sub("", text):
        raise ValueError(f"unknown mark in {text!r}")
    return filled


def _value(name: str, part: str | None, values: Mapping[str, Any]) -> str:
    value = values[name][part] if part else values[name]
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value
