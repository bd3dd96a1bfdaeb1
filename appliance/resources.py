"""Where the files lie that travel with the program but are not Python: playbooks, recipes and pages.

In a checkout they lie in the top folders. In a wheel `playbooks/`, `docs/` and README.md lie inside the package
`appliance`.
"""

from __future__ import annotations

from pathlib import Path

import appliance
import bundles
import signing

_PACKAGE = Path(appliance.__file__).resolve().parent
_TOP = _PACKAGE.parent


def playbooks_path() -> Path:
    """The folder of playbooks: payload for bundles. A host runs only the verified copy in its release."""
    inside = _PACKAGE / "playbooks"
    return inside if inside.is_dir() else _TOP / "playbooks"


def recipes_path() -> Path:
    """The folder of recipes that come with the program."""
    return Path(bundles.__file__).resolve().parent / "recipes"


def docs_path() -> Path:
    """The folder of pages."""
    inside = _PACKAGE / "docs"
    return inside if inside.is_dir() else _TOP / "docs"


def readme_path() -> Path:
    """The page that introduces the project."""
    inside = _PACKAGE / "docs" / "README.md"
    return inside if inside.is_file() else _TOP / "README.md"


def page_paths() -> dict[str, Path]:
    """Every page of the project by its name, in the order of names."""
    pages = {path.stem: path for path in docs_path().glob("*.md") if path.name != "README.md"}
    pages |= {
        "readme": readme_path(),
        "format": Path(bundles.__file__).resolve().parent / "FORMAT.md",
        "trust": Path(signing.__file__).resolve().parent / "TRUST.md",
        "playbooks": playbooks_path() / "README.md",
    }
    return dict(sorted(pages.items()))
