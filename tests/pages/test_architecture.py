"""The layers that docs/architecture.md shows are those of the code, and of the contracts that hold them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.pages.markdown import headings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOP = Path(__file__).resolve().parents[2]
PAGE = (TOP / "docs" / "architecture.md").read_text("utf-8")
LAYERS = PAGE.partition("\n## Layers\n")[2].partition("\n## ")[0]
SECTIONS = [
    "What it is for",
    "Words",
    "Layers",
    "The bundle",
    "The runtime",
    "Trust",
    "The bare host",
    "Sticks",
    "The host",
    "Serving",
    "Commands and exit codes",
    "Decisions",
]
ROW = re.compile(r"^\| [^|]+ \| ([^|]+) \|$", re.MULTILINE)


def levels(text: str, above: str, beside: str) -> list[set[str]]:
    """Layers, highest first, each with its packages."""
    return [{name.strip() for name in level.split(beside)} for level in text.split(above)]


def test_sections_are_those_that_modules_cite() -> None:
    assert [heading for heading in headings(PAGE)[1:] if heading in SECTIONS] == SECTIONS


def test_every_contract_of_layers_is_on_the_page() -> None:
    contracts = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    shown = [levels(re.sub(r"\([^)]*\)|`", "", cells), ">", ",") for cells in ROW.findall(LAYERS)]
    for contract in contracts:
        if contract["type"] == "layers":
            assert levels(re.sub(r"[()]", "", "> ".join(contract["layers"])), ">", "|") in shown, contract["name"]


def test_every_folder_of_the_program_is_on_the_page() -> None:
    folders = [path.parent for path in (TOP / "appliance").glob("*/*/__init__.py")]
    assert [str(one) for one in folders if f"`{one.name}/`" not in LAYERS and f"`{one.name}`" not in LAYERS] == []
