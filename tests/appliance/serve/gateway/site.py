"""A gateway with engines behind it, as its users meet it: through a socket, and with the OpenAI client."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import openai

from appliance.host.engine.engine_command import EngineSpec
from appliance.host.engine.process import start_engine
from appliance.host.engine.state import SERVING, EngineState
from appliance.host.site.api_keys import AccessStore
from appliance.serve.gateway.messages import EngineEvent, Plan, PlannedModel
from appliance.serve.supervisor import listener
from appliance.serve.supervisor.gateway_process import GatewayProcess
from tests.sim.engines import make_spec, notes

NOW = datetime.now(timezone.utc)
DIGESTS = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("release", "template", "engine", "policy")}


@dataclass
class Site:
    """A gateway with engines behind it, and the keys to it."""

    port: int
    process: GatewayProcess
    sockets: Path
    keys: dict[str, str]
    log: Path
    models: dict[str, str]

    def client(self, key: str = "all") -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1", api_key=self.keys[key], max_retries=0, timeout=20
        )

    def call(
        self, method: str, path: str, body: object = None, key: str | None = "all", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        given = {"authorization": f"Bearer {self.keys.get(key, key)}"} if key else {}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        try:
            connection.request(method, path, data, {**given, **{k.replace("_", "-"): v for k, v in headers.items()}})
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def ask(self, said: str, model: str = "toy", **options: object) -> tuple[int, dict[str, str], bytes]:
        key = str(options.pop("key", "all"))
        return self.call("POST", "/v1/chat/completions", question(said, model, **options), key)

    def begin(self, said: str, model: str = "toy", **options: object) -> http.client.HTTPConnection:
        """Ask, and do not wait for the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"authorization": f"Bearer {self.keys[str(options.pop('key', 'all'))]}"}
        connection.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(question(said, model, **(options or {"stream": said != "hang"}))),
            headers,
        )
        return connection

    def asked(self, model: str) -> list[str]:
        """What the engine of a model was asked, in its own order."""
        bodies = [note["body"] for note in notes(self.sockets) if note.get("body", {}).get("model") == model]
        return [body["messages"][-1]["content"] for body in bodies]

    def left(self) -> list[str]:
        return [note["left"] for note in notes(self.sockets) if "left" in note]

    def gauge(self, name: str, model: str) -> float:
        text = self.call("GET", "/metrics", key=None)[2].decode()
        found = re.search(rf'^appliance_{name}{{model="{model}"}} (.*)$', text, re.MULTILINE)
        assert found is not None, text
        return float(found[1])


def question(said: str, model: str = "toy", **options: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": said}], **options}


def nested(depth: int) -> object:
    return [nested(depth - 1)] if depth else "x"


def eventually(condition: Callable[[], object], timeout_s: float = 60) -> bool:
    until = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return bool(condition())


@contextmanager
def opened(
    folder: Path,
    slots: dict[str, int],
    python: Path = Path(sys.executable),
    spec: Callable[[Path, str, int], EngineSpec] = lambda folder, name, slots: make_spec(folder, name, slots=slots),
    **more_of_plan: Any,
) -> Iterator[Site]:
    """A site, for the length of a block; `python` runs the gateway, and `spec` makes each engine's."""
    with ExitStack() as stack:
        planned = []
        for name, count in slots.items():
            made = spec(folder, name, count)
            engine = stack.enter_context(start_engine(made, folder, folder / f"{name}.log"))
            engine.wait_ready(60)
            width = 8 if name == "embeds" else 0
            more = (str(engine.socket), count, made.context, made.file.sha256, DIGESTS["template"], width)
            planned.append(PlannedModel(name, *more, task="rerank" if name == "ranks" else ""))
        access = folder / "access.db"
        keys = grant_keys(AccessStore(access))
        plan = Plan(
            "toy 1.0.0",
            DIGESTS["release"],
            DIGESTS["policy"],
            DIGESTS["engine"],
            str(access),
            tuple(planned),
            **more_of_plan,
        )
        listening = stack.enter_context(listener.bind("127.0.0.1", 0))
        listener.listen(listening)
        log = folder / "gateway.log"
        process = GatewayProcess(python, folder, plan, listening, log)
        stack.callback(process.stop)
        for model in planned:
            process.send(EngineEvent(model.name, EngineState(SERVING, "", "E2", "netns")))
        process.start()
        models = {model.name: model.sha256 for model in planned}
        yield Site(listening.getsockname()[1], process, folder, keys, log, models)


def grant_keys(store: AccessStore) -> dict[str, str]:
    keys = {
        "all": store.grant("all", NOW),
        "narrow": store.grant("narrow", NOW, models=frozenset({"narrow"})),
        "late": store.grant("late", NOW, expires=NOW - timedelta(seconds=1)),
        "revoked": store.grant("revoked", NOW),
    }
    store.revoke("revoked", NOW)
    return keys


@contextmanager
def asking(ask: Callable[[], None], users: int) -> Iterator[None]:
    """Let users ask again and again, each in a thread, for the length of the block."""
    is_over = threading.Event()

    def ask_again() -> None:
        while not is_over.is_set():
            ask()

    threads = [threading.Thread(target=ask_again) for _ in range(users)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
