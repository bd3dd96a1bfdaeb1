"""What short commands do not load: each of them starts as quickly as what it imports lets it."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

from appliance.cli.command_table import COMMANDS
from tests.appliance.loaded import below

HEAVY = (
    *("ansible_runner", "asyncio", "concurrent.futures", "httpx", "huggingface_hub", "jinja2", "logging"),
    *("multiprocessing", "packaging", "pydantic", "rich", "starlette", "uvicorn", "yaml"),
    *("cryptography.hazmat.backends", "cryptography.x509", "appliance.builder", "appliance.serve.gateway"),
)
"""No answer about this machine needs them."""

OWN = {"--help": "", "--version": "", "status --prefix none": "status"}
"""Command lines, each with the one command whose module it loads."""

RUN = """
import json, sys
from appliance.cli.main import run
from appliance.cli.console.terminal import Terminal
run(sys.argv[1:], Terminal())
json.dump(sorted(sys.modules), sys.stderr)
"""


@lru_cache(maxsize=len(OWN))
def load(line: str) -> tuple[str, ...]:
    """The modules that a command line loads in a fresh process."""
    words = [sys.executable, "-I", "-c", RUN, *line.split()]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parent)
    return tuple(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("line", OWN)
def test_a_short_command_loads_nothing_heavy(line: str) -> None:
    assert {name: found for name in HEAVY if (found := below(load(line), name))} == {}


@pytest.mark.parametrize(("line", "own"), OWN.items())
def test_only_the_typed_commands_module_is_loaded(line: str, own: str) -> None:
    assert [name for name, entry in COMMANDS.items() if entry.module in load(line)] == ([own] if own else [])


@pytest.mark.parametrize("line", [line for line, own in OWN.items() if not own])
def test_without_a_command_no_signature_is_checked_and_nothing_for_it_is_loaded(line: str) -> None:
    assert [*below(load(line), "cryptography"), *below(load(line), "signing.verify")] == []


def test_the_list_would_show_what_is_loaded() -> None:
    assert {"click", "cryptography", "appliance.cli.operator.status"} <= set(load("status --prefix none"))
