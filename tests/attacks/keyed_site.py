"""A gateway in this process with one engine and named keys, whose clock a test sets and whose events it reads."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from appliance.events import Event
from appliance.host.engine.process import start_engine
from appliance.host.engine.state import SERVING, EngineState
from appliance.host.site.api_keys import AccessStore
from appliance.host.site.rights import Rights
from appliance.serve.gateway.messages import EngineEvent, Plan, PlannedModel
from appliance.serve.gateway.routes import Gateway
from appliance.serve.requests.paths import CHAT
from tests.sim.clock import SimClock
from tests.sim.engines import make_spec

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=timezone.utc)


@dataclass
class KeyedSite:
    """A gateway, what it reports, and the keys to it by name."""

    client: TestClient
    gateway: Gateway
    store: AccessStore
    clock: SimClock
    events: list[Event]
    keys: dict[str, str] = field(default_factory=dict)

    def grant(self, name: str, **rights: Any) -> None:
        """Grant a key; the name of it is for the test."""
        expires, models = rights.pop("expires", None), rights.pop("models", None)
        given = Rights(**rights)
        self.keys[name] = self.store.grant(name, self.clock(), rights=given, expires=expires, models=models)

    def account(self, name: str) -> str:
        """The account of a key."""
        key = self.store.find(name)
        assert key is not None
        return key.account

    def get(self, path: str, key: str) -> Any:
        """Read a path with a key."""
        return self.client.get(path, headers=self.headers(key))

    def ask(self, key: str, said: str = "abc", path: str = CHAT, **more: Any) -> Any:
        """Send a request with a key."""
        text = {"messages": [{"role": "user", "content": said}]} if path == CHAT else {"input": said}
        return self.client.post(path, json={"model": "toy", **text, **more}, headers=self.headers(key))

    def headers(self, key: str) -> dict[str, str]:
        """The headers of a request with a key."""
        return {"authorization": f"Bearer {self.keys[key]}"}

    def stream_while(self, key: str, said: str, do: Any, *, is_stream: bool = True) -> list[dict[str, Any] | str]:
        """Do something while an answer is being written; gives the events of a stream."""
        replies: list[Any] = []
        asking = threading.Thread(target=lambda: replies.append(self.ask(key, said, stream=is_stream)))
        asking.start()
        while not self.gateway.books.watch._open:
            time.sleep(0.005)
        time.sleep(0.2)  # the stream has begun
        do()
        asking.join(30)
        [reply] = replies
        lines = [line[len("data: ") :] for line in reply.text.splitlines() if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]


@contextmanager
def keyed_site(folder: Path) -> Iterator[KeyedSite]:
    """A site, for the length of a block; usage is written below the folder."""
    spec, clock = make_spec(folder, "toy"), SimClock(NOW)
    store = AccessStore(folder / "access.db")
    (folder / "state").mkdir()
    events: list[Event] = []
    with start_engine(spec, folder, folder / "engine.log") as engine:
        engine.wait_ready(20)
        planned = PlannedModel("toy", str(engine.socket), 2, 512, spec.file.sha256, "")
        plan = Plan("toy 1.0.0", "0" * 64, "0" * 64, "0" * 64, str(folder / "access.db"), (planned,))
        gateway = Gateway(plan, store, clock, events.append, folder / "state" / "usage.db")
        gateway.on_event(EngineEvent("toy", EngineState(SERVING, "", "E2", "netns")))
        with TestClient(gateway.application()) as client:
            yield KeyedSite(client, gateway, store, clock, events)
