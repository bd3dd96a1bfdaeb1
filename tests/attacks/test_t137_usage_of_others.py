"""T137: a user reads what others used, an auditor sends requests, and figures or events name a person."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.harness import guard_off, row
from tests.attacks.keyed_site import KeyedSite, keyed_site

ROW = row(137)
OWN, ALL = "/v1/usage", "/v1/usage/keys"


@pytest.fixture(scope="module")
def site() -> Iterator[KeyedSite]:
    with tempfile.TemporaryDirectory(prefix="t137-") as name, keyed_site(Path(name)) as made:
        made.grant("ann.canary")
        made.grant("bob.canary", quotas={"tokens_per_day": 100, "concurrency": 3})
        made.grant("auditor", role="auditor")
        made.grant("operator", role="operator")
        made.grant("narrow-auditor", role="auditor", models=frozenset({"other"}))
        for name_ in ("ann.canary", "bob.canary"):
            assert made.ask(name_).status_code == 200
        asyncio.run(made.gateway.books.write())
        yield made


def test_unattacked_user_reads_what_is_used_and_left(site: KeyedSite) -> None:
    found = site.get(OWN, "bob.canary").json()
    assert found["account"] == site.account("bob.canary")
    assert (found["requests"], found["tokens_in"] > 0, found["tokens_per_day"]) == (1, True, 100)
    assert found["tokens_left"] == 100 - found["tokens_in"] - found["tokens_out"]
    assert (found["concurrency"], found["day"]) == (3, "2026-01-02")
    nothing = site.get(OWN, "auditor").json()
    assert (nothing["requests"], nothing["tokens_left"]) == (0, None)


def test_unattacked_auditor_reads_all_and_an_operator_chats_too(site: KeyedSite) -> None:
    for role in ("auditor", "operator"):
        rows = site.get(ALL, role).json()["data"]
        assert {site.account(name) for name in ("ann.canary", "bob.canary")} <= {row["account"] for row in rows}
        assert [model["id"] for model in site.get("/v1/models", role).json()["data"]] == ["toy"]
        assert site.get("/v1/models/toy", role).status_code == 200
    assert site.ask("operator").status_code == 200
    assert site.get("/v1/models", "narrow-auditor").json()["data"] == []


def test_attacked_by_a_user_for_the_usage_of_all(site: KeyedSite) -> None:
    for path in (ALL, f"{ALL}?account={site.account('bob.canary')}"):
        reply = site.get(path, "ann.canary")
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "role_forbidden")
    asked = site.get(f"{OWN}?account={site.account('bob.canary')}&key=x", "ann.canary").json()
    assert asked["account"] == site.account("ann.canary")
    assert site.client.get(f"{OWN}?api_key={site.keys['ann.canary']}").status_code == 401


def test_attacked_by_an_auditor_who_chats(site: KeyedSite) -> None:
    reply = site.ask("auditor")
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "role_forbidden")


def test_attacked_for_names_in_figures_and_events(site: KeyedSite) -> None:
    figures = site.client.get("/metrics").text
    assert f'appliance_key_requests_total{{account="{site.account("ann.canary")}"}} 1.0' in figures
    reported = " ".join(str(event) for event in site.events)
    assert site.account("ann.canary") in reported
    usage = site.get(ALL, "auditor").text
    file = site.gateway.books._file
    assert file is not None
    for text in (figures, reported, usage, file.path.read_bytes().decode("latin-1")):
        assert "canary" not in text
        assert not any(key in text or key.split("-", 2)[2] in text for key in site.keys.values())


def test_unguarded_user_reads_the_usage_of_all(site: KeyedSite) -> None:
    with guard_off(ROW.guard, lambda _caller: None):
        assert site.get(ALL, "ann.canary").status_code == 200
