"""The paths of files that belong to the program and are not Python: playbooks and recipes.

In a checkout they lie in the top folders; in a wheel `playbooks/` lies inside the package `appliance`.
"""

from __future__ import annotations

from pathlib import Path

import appliance
import bundles

_PACKAGE = Path(appliance.__file__).resolve().parent


def playbooks_path() -> Path:
    """The folder of the playbooks that go into bundles. A host runs only the verified copy in its release."""
    inside = _PACKAGE / "playbooks"
    return inside if inside.is_dir() else _PACKAGE.parent / "playbooks"


def recipes_path() -> Path:
    """The folder of the program's own recipes."""
    return Path(bundles.__file__).resolve().parent / "recipes"
