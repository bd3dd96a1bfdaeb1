"""The mutants that no test can kill, each with its reason: `survivors.toml`."""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = Path(__file__).with_name("survivors.toml")


def listed() -> dict[tuple[str, str], str]:
    """The reason of each listed survivor, by the module's name and its own.

    Raises:
        ValueError: one stands twice, or has no reason.
    """
    found: dict[tuple[str, str], str] = {}
    for group in tomllib.loads(FILE.read_text()).get("survivors", []):
        for name in group["mutants"]:
            place = (group["module"], name)
            if place in found or not group["reason"].strip():
                raise ValueError(f"{FILE.name}: {name} stands twice, or has no reason")
            found[place] = group["reason"]
    return found
