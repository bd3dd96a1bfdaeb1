"""The pages: they refer to nothing outside and run only their own script. The dashboard asks for metrics that exist."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from appliance.events import INCIDENT
from appliance.host.process.journal import MESSAGE_IDS
from appliance.host.site.api_keys import AccessStore
from appliance.serve.callers.usage import Usage, UsageCounts
from appliance.serve.callers.usage_metrics import UsageCollector
from appliance.serve.gateway.messages import Plan
from appliance.serve.gateway.routes import Gateway
from appliance.serve.observation.metrics import EngineFigures, Metrics
from appliance.serve.observation.page import PAGES
from appliance.serve.upstream.token_usage import TokenUsage
from tests.toy import NOW

NAMES = re.compile(r"appliance_[a-z_]+")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    plan = Plan("toy 1.0.0", "0" * 64, "0" * 64, "0" * 64, str(tmp_path), ())
    with TestClient(Gateway(plan, AccessStore(tmp_path / "access.db"), lambda: NOW).application()) as made:
        yield made


@pytest.mark.parametrize("path", PAGES)
def test_page_refers_to_nothing_outside_and_runs_only_its_own_script(client: TestClient, path: str) -> None:
    reply = client.get(path)
    headers, body = reply.headers, reply.content
    assert reply.status_code == 200
    used = re.sub(rb"<code[^>]*>.*?</code>", b"", body, flags=re.DOTALL)  # what the handbook shows as an example
    assert not re.search(rb"(?:src|href)\s*=\s*[\"'](?!data:,|#|/[a-z.]*[\"'])|https?:|//[a-z]+\.|@import|url\(", used)
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    for tag in ("script", "style"):
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), body, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(text).digest()).decode() for text in inside]
        assert policy[f"{tag}-src"] == (" ".join(f"'sha256-{digest}'" for digest in digests) or "'none'")
    assert not re.search(rb" on[a-z]+=| style=", used)


def test_links_of_the_pages_lead_to_routes_and_headings_that_exist(client: TestClient) -> None:
    for path, page in PAGES.items():
        text = page.decode()
        anchors = set(re.findall(r' id="([^"]+)"', text))
        for link in re.findall(r'href="([^"]*)"', text):
            if link.startswith("#"):
                assert link[1:] in anchors, (path, link)
            elif link != "data:,":
                assert client.get(link).status_code == 200, (path, link)


def test_handbook_has_every_heading_of_the_page_of_users() -> None:
    text = (Path(__file__).parents[4] / "docs" / "user.md").read_text()
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    assert titles
    assert [title for title in titles if f">{title}</h" not in PAGES["/handbook"].decode()] == []


def metric_names() -> set[str]:
    """Every name that a query may ask for, from metrics in which everything was counted once."""
    metrics = Metrics(lambda: [EngineFigures("toy", "E2", "netns", True, 2, 1, 0)])
    metrics.count_request("toy", "/v1/completions", 200)
    metrics.count_refused_key()
    metrics.count_refusal("unknown_field")
    metrics.count_tokens("toy", TokenUsage(1, 2, 0.5, 1))
    metrics.observe_first_token("toy", 0.1)
    usage = Usage(lambda: NOW)
    usage.totals["0" * 12] = UsageCounts(1, 2, 3)
    metrics.register(UsageCollector(usage))
    families = text_string_to_metric_families(metrics.format().decode())
    return {sample.name for family in families for sample in family.samples}


def test_every_metric_that_the_dashboard_asks_for_exists(client: TestClient) -> None:
    reply = client.get("/dashboard.json")
    assert reply.headers["content-type"] == "application/json"
    dashboard = reply.json()
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for query in queries for name in NAMES.findall(query)}
    assert len(queries) >= len(dashboard["panels"]) >= 10
    assert asked <= metric_names()
    assert set(NAMES.findall(json.dumps(dashboard["templating"]))) <= metric_names()


def test_dashboard_shows_every_metric_of_the_appliance() -> None:
    shown = set(NAMES.findall((Path(__file__).parents[4] / "appliance/serve/observation/dashboard.json").read_text()))
    own = {name for name in metric_names() if not name.startswith("appliance_gateway_process_")}
    of_histograms = {name for name in own if name.endswith(("_sum", "_count"))}
    assert own - of_histograms - shown == set()


def test_page_of_teams_names_every_metric_and_no_other() -> None:
    text = (Path(__file__).parents[4] / "docs" / "team.md").read_text().partition("## Metrics and the page")[2]
    rows = re.findall(r"^\| (`[a-z_…`, ]+) \|", text.partition("**A dashboard")[0], re.MULTILINE)
    shown = {f"appliance_{name}" for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    histograms = re.compile(r"_(bucket|count|sum)$")
    own = {histograms.sub("", name) for name in metric_names() if "gateway_process" not in name}
    assert shown == own


def test_page_of_teams_names_the_identifier_of_incidents() -> None:
    text = (Path(__file__).parents[4] / "docs" / "team.md").read_text()
    assert f"MESSAGE_ID={MESSAGE_IDS[INCIDENT]}`" in text


def test_dashboard_names_no_data_source_of_a_site(client: TestClient) -> None:
    text = client.get("/dashboard.json").text
    assert set(re.findall(r'"uid": "([^"]*)"', text)) == {"${DS_PROMETHEUS}", "airgap-appliance"}
    assert "http" not in text
