"""What `appliance verify` does not load: a check of a few kilobytes is as quick as what has to be imported for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.appliance.loaded import below
from tests.toy import build_toy

HEAVY = (
    *("ansible_runner", "asyncio", "concurrent.futures", "email", "http", "httpx", "huggingface_hub", "jinja2"),
    *("logging", "multiprocessing", "packaging", "pydantic", "rich", "socket", "ssl", "starlette", "subprocess"),
    *("tempfile", "uvicorn", "yaml", "zipfile"),
    *("cryptography.hazmat.backends", "cryptography.hazmat.primitives.ciphers"),
    *("cryptography.hazmat.primitives.serialization", "cryptography.x509"),
    *("appliance.builder", "appliance.keys", "appliance.serve"),
    *("bundles.contents.format_2", "bundles.contents.format_2_json", "bundles.parity"),
)
"""Modules and packages that a check of a bundle has no use for."""

VERIFY = """
import json, sys
from appliance.cli.main import run
from appliance.cli.console.terminal import Terminal
code = run(["verify", *sys.argv[1:]], Terminal())
json.dump({"code": code, "modules": sorted(sys.modules)}, sys.stderr)
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The modules that verifying the toy bundle loads in a fresh process."""
    workspace, bundle = build_toy(tmp_path_factory.mktemp("toy"))
    words = [sys.executable, "-I", "-c", VERIFY, str(bundle), "--workspace", str(workspace.path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[4])
    assert "every byte is what was signed" in done.stdout
    report = json.loads(done.stderr.splitlines()[-1])
    assert report["code"] == 0
    return set(report["modules"])


@pytest.mark.parametrize("name", HEAVY)
def test_verifying_a_bundle_does_not_load(loaded: set[str], name: str) -> None:
    assert below(loaded, name) == []


def test_the_list_would_show_what_is_loaded(loaded: set[str]) -> None:
    assert {"click", "cryptography", "bundles.chunks.check", "signing.verify"} <= loaded
