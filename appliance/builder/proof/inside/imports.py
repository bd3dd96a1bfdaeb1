"""Imports all modules that the wheels of this environment install, and prints those that fail.

Runs as `python -I imports.py`, standard library only. Prints one JSON list of objects: `wheel`, `module`, `error`.

Rules:
- of every wheel, each module at the top of it; of this program, every module that a host runs;
- output of a module is dropped, and its exceptions become entries, also those that would end the process.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import json
import os

OWN = "airgap-appliance"
BUILDER_ONLY = ("appliance.builder", "appliance.cli.publisher.build", "appliance.cli.publisher.lock")
"""Modules that need the extra `build`, which no host has."""
SUFFIXES = tuple(importlib.machinery.all_suffixes())


def top_modules(distribution: importlib.metadata.Distribution) -> list[str]:
    """The names that a wheel adds to `import`, without stubs for type checkers."""
    found = set()
    for file in distribution.files or ():
        parts = file.parts
        name = parts[0]
        if len(parts) == 1 and name.endswith(SUFFIXES):
            found.add(name.split(".")[0])
        elif len(parts) > 1 and name.isidentifier() and parts[-1].endswith(SUFFIXES):
            found.add(name)
    return sorted(name for name in found if name.isidentifier())


def own_modules(distribution: importlib.metadata.Distribution) -> list[str]:
    """Every module of this program that a host may run."""
    found = []
    for file in distribution.files or ():
        if file.suffix == ".py" and ".." not in file.parts and file.parts[-1] != "__main__.py":
            name = ".".join(file.with_suffix("").parts)
            name = name[: -len(".__init__")] if name.endswith(".__init__") else name
            if not name.startswith(BUILDER_ONLY) and all(part.isidentifier() for part in name.split(".")):
                found.append(name)
    return sorted(found)


def main() -> None:
    """Import each module, and print the answer."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    failed, tried = [], 0
    for distribution in sorted(importlib.metadata.distributions(), key=lambda one: str(one.metadata["Name"])):
        wheel = distribution.metadata["Name"]
        for module in own_modules(distribution) if wheel == OWN else top_modules(distribution):
            tried += 1
            try:
                importlib.import_module(module)
            except BaseException as error:  # noqa: BLE001 -- every one is reported
                text = f"{type(error).__name__}: {error}"
                failed.append({"wheel": wheel, "module": module, "error": text[:500]})
    json.dump({"tried": tried, "failed": failed}, out)
    out.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
