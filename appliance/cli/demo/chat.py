"""One chat request to the served model, over the OpenAI route and with the standard library alone.

Owns the request and what the demo keeps of the response.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from appliance.cli.demo.child_commands import RunningServer
from signing.errors import ApplianceError

ANSWER_TIMEOUT_S = 180.0
MAX_TOKENS = 48


@dataclass(frozen=True)
class ChatAnswer:
    """A question, the model's answer, and the digests of what made it.

    Args:
        question: as asked.
        text: the model's answer.
        model: the name of the model.
        completion_tokens: how many tokens the answer took.
        appliance: the response's field of that name: digests of model, template, engine and policy.
    """

    question: str
    text: str
    model: str
    completion_tokens: int
    appliance: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """For the demo's summary."""
        return asdict(self)


def request_answer(server: RunningServer, question: str) -> ChatAnswer:
    """Send a question to the first model that the endpoint offers.

    Raises:
        ApplianceError: the endpoint answered with an error, or with nothing.
    """
    model = _call(server, "GET", "/v1/models")["data"][0]["id"]
    response = _call(
        server,
        "POST",
        "/v1/chat/completions",
        {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
        },
    )
    text = response["choices"][0]["message"]["content"].strip()
    answer = ChatAnswer(question, text, model, response["usage"]["completion_tokens"], response["appliance"])
    if not answer.text or answer.completion_tokens < 1:
        raise ApplianceError("demo.no-answer", question, expected="at least one token", found="an empty answer")
    return answer


def _call(server: RunningServer, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request(
            method,
            path,
            body=json.dumps(body) if body is not None else None,
            headers={"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"},
        )
        response = connection.getresponse()
        data = response.read()
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise ApplianceError(
            "demo.no-answer", f"{method} {path}", expected="status 200", found=f"{response.status}: {data[:200]!r}"
        )
    return json.loads(data)
