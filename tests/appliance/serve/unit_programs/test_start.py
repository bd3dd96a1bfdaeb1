"""Modules that the units' programs do not load: a host keeps none compiled, so each is compiled anew at every start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.appliance.loaded import below

GATEWAY, ENGINE = "appliance.serve.unit_programs.gateway", "appliance.serve.unit_programs.engine"
ENGINE_END = "appliance.serve.unit_programs.engine_end"
NEVER = {
    GATEWAY: ("ansible_runner", "httpcore", "httpx", "jinja2", "pydantic", "pygments", "rich", "yaml"),
    ENGINE: (
        *("ansible_runner", "asyncio", "concurrent.futures", "email", "h11", "http", "httpcore", "httpx", "jinja2"),
        *("logging", "prometheus_client", "pydantic", "rich", "sqlite3", "starlette", "uvicorn", "yaml", "zipfile"),
        *("appliance.host.release.environment_check", "appliance.keys"),
    ),
    ENGINE_END: ("asyncio", "cryptography", "http", "pydantic", "sqlite3", "starlette", "uvicorn", "yaml"),
}
"""Modules and packages that each has no use for."""


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """The modules that each program has loaded before it does anything."""
    found = {}
    for unit in NEVER:
        program = f"import json, sys, {unit}; json.dump(sorted(sys.modules), sys.stdout)"
        words = [sys.executable, "-I", "-c", program]
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[4])
        found[unit] = set(json.loads(done.stdout))
    return found


@pytest.mark.parametrize(("unit", "name"), [(unit, name) for unit, names in NEVER.items() for name in names])
def test_a_unit_does_not_load(loaded: dict[str, set[str]], unit: str, name: str) -> None:
    assert below(loaded[unit], name) == []


def test_the_list_would_show_what_is_loaded(loaded: dict[str, set[str]]) -> None:
    assert {"uvicorn", "starlette", "h11"} <= loaded[GATEWAY]
    assert {"cryptography", "signing.verify", "appliance.host.models.served_file"} <= loaded[ENGINE]
