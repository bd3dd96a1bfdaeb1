"""T37: users without a good key, users of other people's models, and users who send too much."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from appliance.host.engine.process import start_engine
from appliance.host.engine.state import SERVING, EngineState
from appliance.host.site.api_keys import AccessStore, Key
from appliance.serve.gateway.messages import EngineEvent, Plan, PlannedModel
from appliance.serve.gateway.routes import Gateway
from appliance.serve.requests.body import MAX_BODY_BYTES
from appliance.serve.requests.paths import CHAT, COMPLETIONS, ROUTES
from appliance.serve.sharing.queue import RequestQueue
from appliance.serve.sharing.share import Turn
from tests.attacks.harness import guard_off, row
from tests.sim.clock import SimClock
from tests.sim.engines import make_spec

ROW = row(37)
NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
BAD = ["late", "revoked", "ak-000000000000-" + "A" * 43, "ak-'; DROP TABLE keys; --", "", "é", "x" * 100_000]


@dataclass
class Site:
    """A gateway with one engine behind two names, and its keys by whose they are."""

    client: TestClient
    gateway: Gateway
    keys: dict[str, str]
    clock: SimClock

    def ask(self, key: str | None, model: str = "toy", path: str = CHAT, **more: Any) -> Any:
        asked: dict[str, dict[str, Any]] = {
            CHAT: {"messages": [{"role": "user", "content": "abc"}]},
            COMPLETIONS: {"prompt": "abc"},
        }
        body = {"model": model, **asked.get(path, {"input": "abc"}), **more}
        return self.client.post(path, json=body, headers=self.headers(key))

    def headers(self, key: str | None) -> dict[bytes, bytes]:
        return {} if key is None else {b"authorization": b"Bearer " + self.keys.get(key, key).encode()}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="t37-") as name:
        folder = Path(name)
        spec, clock = make_spec(folder, "toy"), SimClock(NOW)
        store = AccessStore(folder / "access.db")
        keys = {
            "all": store.grant("all", NOW),
            "toy": store.grant("toy", NOW, models=frozenset({"toy"})),
            "late": store.grant("late", NOW, expires=NOW),
            "revoked": store.grant("revoked", NOW),
            "soon": store.grant("soon", NOW, expires=NOW + timedelta(hours=1)),
        }
        store.revoke("revoked", NOW)
        with start_engine(spec, folder, folder / "engine.log") as engine:
            engine.wait_ready(20)
            planned = [
                PlannedModel(name, str(engine.socket), 2, 512, spec.file.sha256, "") for name in ("toy", "secret")
            ]
            plan = Plan("toy 1.0.0", "0" * 64, "0" * 64, "0" * 64, str(folder / "access.db"), tuple(planned))
            gateway = Gateway(plan, store, clock)
            for model in planned:
                gateway.on_event(EngineEvent(model.name, EngineState(SERVING, "", "E2", "netns")))
            with TestClient(gateway.application()) as client:
                yield Site(client, gateway, keys, clock)


def flood(site: Site) -> None:
    """All slots are taken and nobody else may wait."""
    queue = RequestQueue(2)
    queue.max_waiting = 0
    for _ in range(2):
        queue._slots.take("somebody", b"")
    site.gateway._backends["toy"].queue = queue


@pytest.fixture(autouse=True)
def _calm(site: Site) -> Iterator[None]:
    yield
    site.gateway._backends["toy"].queue = RequestQueue(2)
    site.clock.set(NOW)


@pytest.mark.parametrize("key", ["all", "toy", "soon"])
def test_unattacked_good_key_is_answered(site: Site, key: str) -> None:
    reply = site.ask(key)
    assert (reply.status_code, reply.json()["choices"][0]["message"]["content"]) == (200, "cba")


@pytest.mark.parametrize("key", [None, *BAD], ids=lambda key: repr(key)[:30])
@pytest.mark.parametrize("path", [*ROUTES, "/v1/models", "/v1/models/toy"])
def test_attacked_without_a_good_key(site: Site, key: str | None, path: str) -> None:
    if path in ROUTES:
        reply = site.ask(key, path=path)
    else:
        reply = site.client.get(path, headers=site.headers(key))
    # One answer for all: nobody learns which keys exist.
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")


def test_attacked_with_a_key_whose_hour_has_passed(site: Site) -> None:
    site.clock.pass_time(3600)
    assert site.ask("soon").status_code == 401


def test_attacked_with_the_right_id_and_another_secret(site: Site) -> None:
    key = site.keys["all"]
    assert site.ask(key[:-1] + ("A" if key[-1] != "A" else "B")).status_code == 401


def test_attacked_for_somebody_elses_model(site: Site) -> None:
    reply = site.ask("toy", model="secret")
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "model_forbidden")
    names = [model["id"] for model in site.client.get("/v1/models", headers=site.headers("toy")).json()["data"]]
    assert names == ["toy"]


@pytest.mark.parametrize("model", ["gpt-4", "TOY", "toy ", "../toy", "toy\x00"])
def test_attacked_for_a_model_that_is_not_served_no_other_answers(site: Site, model: str) -> None:
    reply = site.ask("toy", model=model)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert "secret" not in reply.text


def test_attacked_by_a_flood(site: Site) -> None:
    flood(site)
    reply = site.ask("all")
    assert (reply.status_code, reply.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(reply.headers["retry-after"]) > 0


def test_attacked_by_a_body_without_end(site: Site) -> None:
    reply = site.client.post(CHAT, content=b"x" * (MAX_BODY_BYTES + 1), headers=site.headers("all"))
    assert reply.status_code == 413


def test_unguarded_anybody_is_answered(site: Site) -> None:
    with guard_off(ROW.guard, lambda *_: Key("anybody", None, None)):
        assert site.ask("").status_code == 200


def test_unguarded_models_and_slots_are_anybodys(site: Site) -> None:
    with guard_off("appliance.host.site.api_keys.Key.may_see", lambda *_: True):
        assert site.ask("toy", model="secret").status_code == 200

    async def walk_in(_queue: RequestQueue, *_: object, is_first: bool) -> Turn:
        return Turn(0, False, 1)

    flood(site)
    queue = "appliance.serve.sharing.queue.RequestQueue"
    with guard_off(f"{queue}._enter", walk_in), guard_off(f"{queue}._leave", lambda *_: None):
        assert site.ask("all").status_code == 200
