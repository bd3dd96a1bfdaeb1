"""The one page: it refers to nothing outside and runs only its own script."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from starlette.testclient import TestClient

from appliance.host.site.api_keys import AccessStore
from appliance.serve.gateway.messages import Plan
from appliance.serve.gateway.routes import Gateway
from tests.toy import NOW


def test_the_page_refers_to_nothing_outside_and_runs_only_its_own_script(tmp_path: Path) -> None:
    plan = Plan("toy 1.0.0", "0" * 64, "0" * 64, "0" * 64, str(tmp_path), ())
    with TestClient(Gateway(plan, AccessStore(tmp_path / "access.db"), lambda: NOW).application()) as client:
        reply = client.get("/")
    headers, body = reply.headers, reply.content
    assert reply.status_code == 200
    assert not re.search(rb"(?:src|href)\s*=\s*[\"'](?!data:,)|https?:|//[a-z]+\.|@import|url\(", body)
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    for tag in ("script", "style"):
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), body, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(text).digest()).decode() for text in inside]
        assert policy[f"{tag}-src"] == " ".join(f"'sha256-{digest}'" for digest in digests)
    assert not re.search(rb" on[a-z]+=| style=", body)
