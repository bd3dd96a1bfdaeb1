"""Checks of rendered text before it is written, by the reader that will read it.

Owns the table of checks that a role may name. A check raises where the reader would refuse the text; it writes nothing.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping

from appliance.host.site.config import parse_site

_SECTION = re.compile(r"\[([A-Za-z]+)\]")
_SECTIONS = frozenset({"Unit", "Service", "Socket", "Timer", "Install"})
_SETTING = re.compile(r"(X-)?[A-Z][A-Za-z0-9]*=")
_COMMAND = re.compile(r"(add|flush|delete) (table|chain|counter|rule) inet appliance_[a-z_]+( |$)")
_KIND = {"Service": "ExecStart=", "Socket": "ListenStream=", "Timer": "On"}
"""The sections that say what a unit does, and the setting that each needs."""


def _check_shell(text: str) -> None:
    done = subprocess.run(["/bin/sh", "-n"], check=False, input=text.encode(), capture_output=True)
    if done.returncode != 0:
        raise ValueError(done.stderr.decode("utf-8", "replace").strip())


def _check_unit(text: str) -> None:
    """Refuse what is no unit: an unknown section, a line that is no setting, or a unit that does nothing.

    systemd passes over a line that it cannot read, so that a unit would start without its protection.
    """
    section, found = "", set[str]()
    for number, line in enumerate(text.splitlines(), 1):
        heading = _SECTION.fullmatch(line)
        if heading:
            section = heading[1]
            if section not in _SECTIONS:
                raise ValueError(f"line {number}: no section of a unit: {line[:80]}")
        elif line and not line.startswith("#"):
            setting = _SETTING.match(line)
            if not section or setting is None:
                raise ValueError(f"line {number}: no setting: {line[:80]!r}")
            found.add(f"{section} {line}")
    if not any(line.startswith(f"{name} {setting}") for name, setting in _KIND.items() for line in found):
        raise ValueError("it has nothing to start: no ExecStart=, ListenStream= or timer")


def _check_nft(text: str) -> None:
    """Refuse rules of nftables for any table but one of ours, and braces that do not match.

    What `nft --check` would check takes capabilities and the kernel's modules.
    """
    for number, line in enumerate(text.splitlines(), 1):
        if line and not line.startswith("#") and (not _COMMAND.match(line) or line.count("{") != line.count("}")):
            raise ValueError(f"line {number}: no command for a table of ours: {line[:80]!r}")


CHECKS: Mapping[str, Callable[[str], object]] = {
    "json": json.loads,
    "nft": _check_nft,
    "none": str,
    "shell": _check_shell,
    "site": lambda text: parse_site(text.encode()),
    "unit": _check_unit,
}
"""The checks of a text before it is written, by the name that a role gives."""
