"""What a fresh process has loaded, by name."""

from __future__ import annotations

from collections.abc import Iterable


def below(loaded: Iterable[str], name: str) -> list[str]:
    """Those of the modules that are the named one, or a part of it where it is a package."""
    return [module for module in loaded if module == name or module.startswith(f"{name}.")]
