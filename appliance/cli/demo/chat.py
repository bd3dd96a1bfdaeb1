"""One question to the served model, by the OpenAI route and with the standard library alone.

Owns the request and what the demo keeps of the response.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from appliance.cli.demo.commands import Served
from signing.errors import ApplianceError

ANSWER_S = 180.0
MAX_TOKENS = 48


@dataclass(frozen=True)
class Answer:
    """A question, what the model said, and the digests of what said it.

    Args:
        question: as asked.
        text: the model's answer.
        model: the name that was asked for.
        completion_tokens: how many tokens the answer took.
        appliance: the response's own field: digests of model, template, engine and policy.
    """

    question: str
    text: str
    model: str
    completion_tokens: int
    appliance: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """For the demo's summary."""
        return asdict(self)


def ask(served: Served, question: str) -> Answer:
    """Ask the first model that the endpoint offers.

    Raises:
        ApplianceError: the endpoint answered with an error, or with nothing.
    """
    model = _call(served, "GET", "/v1/models")["data"][0]["id"]
    response = _call(
        served,
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
    answer = Answer(question, text, model, response["usage"]["completion_tokens"], response["appliance"])
    if not answer.text or answer.completion_tokens < 1:
        raise ApplianceError("demo.no-answer", question, expected="at least one token", found="an empty answer")
    return answer


def _call(served: Served, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    address = urlsplit(served.url)
    connection = http.client.HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=ANSWER_S)
    try:
        connection.request(
            method,
            path,
            body=json.dumps(body) if body is not None else None,
            headers={"Authorization": f"Bearer {served.key}", "Content-Type": "application/json"},
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
