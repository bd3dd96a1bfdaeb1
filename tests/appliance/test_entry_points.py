"""What units, playbooks and installers of other versions start by name is there under that name."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from itertools import pairwise

import pytest

from appliance import entry_points
from tests.test_repository import TOP, texts

# What programs of version 0.1.0 start in a release's environment. Names may be added; none may go.
SINCE_0_1_0 = {
    "appliance.host.logits",
    "appliance.host.rehearsal",
    "appliance.host.rendered",
    "appliance.host.runner",
    "appliance.serve.engine_unit",
    "appliance.serve.gateway",
    "appliance.serve.gateway_unit",
}
# The program itself: its `__main__.py` is no alias.
PROGRAM = "appliance"


def test_every_name_of_before_is_still_in_the_table() -> None:
    assert SINCE_0_1_0 - set(entry_points.MODULES) == set()


@pytest.mark.parametrize(("name", "module"), entry_points.MODULES.items())
def test_name_resolves_to_the_module_that_holds_the_code(name: str, module: str) -> None:
    alias = importlib.import_module(name)
    if hasattr(alias, "__path__"):  # a package is started by its `__main__`
        alias = importlib.import_module(f"{name}.__main__")
    assert alias.main is importlib.import_module(module).main


@pytest.mark.parametrize("name", entry_points.MODULES)
def test_name_can_be_started(name: str) -> None:
    # With nothing to do each ends with an error of its own; a name that is not there ends with Python's.
    command = [sys.executable, "-I", "-B", "-m", name]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=TOP)
    assert done.returncode != 0
    assert "No module named" not in done.stderr


def test_playbooks_and_units_start_names_of_the_table() -> None:
    started = {
        found[1]
        for name, text in texts()
        if name.startswith("playbooks/") and not name.endswith(".md")
        for found in re.finditer(r"-m,? (appliance[\w.]*)", text)
    }
    assert started - {PROGRAM} <= set(entry_points.MODULES)
    assert len(started) > 2


def test_hosts_start_modules_by_the_table_alone() -> None:
    written_out = []
    for path in (path for room in ("host", "serve") for path in (TOP / "appliance" / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if not isinstance(node, ast.List | ast.Tuple):
                continue
            words = [item.value if isinstance(item, ast.Constant) else None for item in node.elts]
            written_out += [
                f"{path.relative_to(TOP)}:{node.lineno}"
                for flag, name in pairwise(words)
                if flag == "-m" and str(name).startswith("appliance")
            ]
    assert written_out == []
