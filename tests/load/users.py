"""Users of every kind: those who read their answers, those who leave, and those whose requests are refused.

Owns what each kind sends, and what it may get. Each speaks HTTP/1.1 by itself, over a connection of its own.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
ENDS = (b"data: [DONE]", b"event: message_stop", b"event: response.completed", b"event: response.incomplete")
"""A line of each of these kinds ends a whole stream."""
BUSY = frozenset({"429 rate_limit_exceeded", "429 concurrency_exceeded"})
AWAY = frozenset({"503 engine_lost", "503 model_restarting", "503 model_starting", "broken off: engine_lost"})
"""What a client tries again, of a model whose engine has ended and is started again."""
LEFT = "left"
_CODE = re.compile(rb'"code": ?"([a-z_]+)"')


@dataclass(frozen=True)
class Kind:
    """One kind of request.

    Args:
        path: of its route.
        body: a JSON value, raw bytes, or None for GET.
        expected: what it may get where nothing is busy.
        key: whose it uses; "" for none.
        model: that it asks; "" where it reaches none.
        is_stream: whether it reads a stream to its end.
        leaves: whether it closes the connection after the first bytes of the answer.
        weight: how often it is chosen.
    """

    path: str
    body: Any = None
    expected: frozenset[str] = frozenset({"200"})
    key: str = "ann"
    model: str = ""
    is_stream: bool = False
    leaves: bool = False
    weight: int = 1


def kinds(model: str) -> dict[str, Kind]:
    """The kinds of users of one model, by name."""
    said = [{"role": "user", "content": "Tell a story about a lighthouse."}]
    chat: dict[str, Any] = {"model": model, "messages": said, "max_tokens": 12}
    claude: dict[str, Any] = {"model": model, "messages": said, "max_tokens": 12}
    respond: dict[str, Any] = {"model": model, "input": "Tell a story.", "max_output_tokens": 16}
    refused = frozenset({"400"})

    def asks(path: str, body: Any, **more: Any) -> Kind:
        return Kind(path, body, model=model, **more)

    return {
        "chat": asks(CHAT, chat, weight=3),
        "chat by bob": asks(CHAT, chat, key="bob", weight=2),
        "two answers": asks(CHAT, {**chat, "n": 2}, key="bob"),
        "one at a time": asks(CHAT, chat, key="one"),
        "stream": asks(CHAT, {**chat, "stream": True}, is_stream=True, weight=4),
        "stream by bob": asks(CHAT, {**chat, "stream": True}, is_stream=True, key="bob", weight=2),
        "leaves a stream": asks(CHAT, {**chat, "stream": True, "max_tokens": 400}, leaves=True, weight=3),
        "leaves an answer": asks(CHAT, {**chat, "max_tokens": 400}, leaves=True),
        "completion": asks("/v1/completions", {"model": model, "prompt": "Once", "max_tokens": 8}),
        "messages": asks(MESSAGES, claude),
        "messages, stream": asks(MESSAGES, {**claude, "stream": True}, is_stream=True),
        "messages, leaves": asks(MESSAGES, {**claude, "stream": True, "max_tokens": 400}, leaves=True),
        "responses": asks(RESPONSES, respond),
        "responses, stream": asks(RESPONSES, {**respond, "stream": True}, is_stream=True),
        "tokens": asks("/tokenize", {"model": model, "content": "a lighthouse"}),
        "embeddings": asks("/v1/embeddings", {"model": model, "input": "x"}, expected=refused),
        "wrong field": asks(CHAT, {**chat, "max_tokens": -1}, expected=refused),
        "wrong JSON": asks(CHAT, b'{"model": ', expected=refused),
        "messages, wrong": asks(MESSAGES, {"model": model}, expected=refused),
        "too long": asks(CHAT, {**chat, "messages": [{"role": "user", "content": "x " * 4000}]}, expected=refused),
        "wrong key": asks(CHAT, chat, key="nobody", expected=frozenset({"401"})),
        "no key": asks(RESPONSES, respond, key="", expected=frozenset({"401"})),
        "used up": asks(CHAT, chat, key="poor", expected=frozenset({"200", "429 quota_exceeded"})),
        "other model": Kind(CHAT, {**chat, "model": "none"}, frozenset({"404"})),
        "no route": Kind("/v1/images/generations", {"prompt": "x"}, frozenset({"404"})),
        "metrics": Kind("/metrics", key=""),
        "models": Kind("/v1/models"),
        "usage": Kind("/v1/usage"),
        "ready": Kind("/readyz", key=""),
        "page": Kind("/", key=""),
    }


@dataclass
class Seen:
    """What the users of a load got.

    Args:
        outcomes: how often each came, by kind, model and outcome.
        wrong: descriptions of what none may get; at most 20.
    """

    outcomes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, name: str, kind: Kind, outcome: str, body: bytes, *, may_be_away: bool) -> None:
        """Count an outcome, and judge it."""
        self.outcomes[name, kind.model, outcome] += 1
        allowed = kind.expected | (BUSY if kind.model else frozenset())
        if may_be_away:
            allowed |= AWAY
        allowed |= {LEFT} if kind.leaves else set()
        is_right = outcome in allowed or outcome.partition(" ")[0] in kind.expected
        if not is_right and len(self.wrong) < 20:
            self.wrong.append(f"{name} of {kind.model!r}: {outcome}: {body[-300:]!r}")

    def total(self, *words: str) -> int:
        """How many outcomes have all of these words in their name."""
        return sum(count for key, count in self.outcomes.items() if all(word in " ".join(key) for word in words))


async def ask(port: int, kind: Kind, keys: Mapping[str, str], begun: asyncio.Event | None = None) -> tuple[str, bytes]:
    """Be one user, once.

    Args:
        port: of the gateway, on this machine.
        kind: of the request.
        keys: by name.
        begun: set when the first event of a stream is here.

    Returns:
        The outcome: the status and the code of a refusal, or how a stream ended; and the body.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        writer.write(_request(kind, keys))
        await writer.drain()
        if kind.leaves and not kind.body.get("stream"):
            await asyncio.sleep(random.random() / 2)
            return LEFT, b""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = head.split()[1]
        if kind.leaves and status == "200":
            await reader.readuntil(b"data: ")
            return LEFT, b""
        first = b""
        if begun is not None and status == "200":
            first = await reader.readuntil(b"data: ")
            begun.set()
        body = first + await reader.read()
        return _outcome(status, head, body, kind), body
    finally:
        writer.transport.abort()


def _request(kind: Kind, keys: Mapping[str, str]) -> bytes:
    data = b"" if kind.body is None else kind.body if isinstance(kind.body, bytes) else json.dumps(kind.body).encode()
    head = [f"{'GET' if kind.body is None else 'POST'} {kind.path} HTTP/1.1", "host: load", "connection: close"]
    if kind.key:
        key = keys.get(kind.key, "ak-0123456789ab-" + "A" * 43)
        head.append(f"x-api-key: {key}" if kind.path == MESSAGES else f"authorization: Bearer {key}")
    head += ["content-type: application/json", f"content-length: {len(data)}", "", ""]
    return "\r\n".join(head).encode() + data


def _outcome(status: str, head: str, body: bytes, kind: Kind) -> str:
    if status == "200" and kind.is_stream:
        return "200" if any(end in body for end in ENDS) else f"broken off: {_code(body)}"
    if status in ("429", "503") and "\r\nretry-after: " not in head:
        return f"{status} without retry-after"
    return status if status[0] == "2" else f"{status} {_code(body)}"


def _code(body: bytes) -> str:
    """The code of the error in a reply, or in the last event of a stream."""
    found = _CODE.findall(body)
    return str(found[-1].decode()) if found else "no error"
