"""Load from several users at once on a gateway, and what they get: tokens per minute and the time to the first token.

Owns the requests and the figures. Rules:
- each user is a connection and a thread of its own, and asks again as soon as an answer has ended;
- every prompt begins with other words, so that no answer is faster since its prompt was read before;
- a refusal with `Retry-After` is counted and waited for; every other error ends the measurement;
- figures are whole numbers, since signed records hold no others. Percentiles are those of nearest rank.
"""

from __future__ import annotations

import http.client
import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from signing.errors import ApplianceError, UsageError

Connect = Callable[[], http.client.HTTPConnection]
MODELS, CHAT = "/v1/models", "/v1/chat/completions"
_BUSY = 429
_WORDS = 24
"""Of a prompt: short, as a question of a person."""


@dataclass(frozen=True, slots=True)
class LoadRow:
    """What so many users got.

    Args:
        users: that asked at once.
        answers: complete ones.
        refused: requests that were sent away for a while.
        tokens: of all answers.
        took_ms: from the first request to the end of the last answer.
        first_token_p50_ms, first_token_p95_ms: from a request to the first text of its answer.
    """

    users: int
    answers: int
    refused: int
    tokens: int
    took_ms: int
    first_token_p50_ms: int
    first_token_p95_ms: int

    @property
    def tokens_per_minute(self) -> int:
        """Tokens of all answers together, for each minute."""
        return round(self.tokens * 60_000 / max(1, self.took_ms))


@dataclass
class _Seen:
    first_token_s: list[float] = field(default_factory=list)
    tokens: int = 0
    refused: int = 0


class LoadClient:
    """A client of one gateway with one key.

    Args:
        connect: gives a connection to the gateway, not connected yet.
        key: of a user.
        max_tokens: of each answer.
    """

    def __init__(self, connect: Connect, key: str, max_tokens: int) -> None:
        self._connect, self._max_tokens = connect, max_tokens
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}

    def models(self) -> list[dict[str, Any]]:
        """The models that chat and that the key may use, as the gateway describes them.

        Raises:
            UsageError: nothing serves there, or the key may not ask.
        """
        connection = self._connect()
        try:
            connection.request("GET", MODELS, headers=self._headers)
            reply = connection.getresponse()
            value = json.loads(reply.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UsageError(
                "bench.not-serving",
                f"{connection.host} port {connection.port}",
                expected="a gateway that answers",
                found=str(error) or type(error).__name__,
                hint="start it: `appliance serve`, or on a whole machine systemctl start appliance-gateway",
            ) from None
        finally:
            connection.close()
        if reply.status != 200:
            raise _refused(value, reply.status)
        return [model for model in value["data"] if not (model.get("embedding") or model.get("task"))]

    def measure(self, model: str, users: int, duration_s: float) -> LoadRow:
        """Let so many users ask at once for a while.

        Args:
            model: the model's name.
            users: at least 1.
            duration_s: after it no user asks again; answers that have begun are waited for.

        Raises:
            ApplianceError: an answer was an error, broke off, or none came at all.
        """
        began, stop = time.monotonic(), Event()
        with ThreadPoolExecutor(users) as pool:
            asking = [pool.submit(self._ask_until, began + duration_s, stop, model, user) for user in range(users)]
            try:
                seen = [one.result() for one in asking]
            finally:
                stop.set()
        took_s = time.monotonic() - began
        first = sorted(value for one in seen for value in one.first_token_s)
        if not first:
            raise ApplianceError(
                "bench.no-answer",
                model,
                expected="at least one answer",
                found=f"{sum(one.refused for one in seen)} refusals in {took_s:.0f} s",
                hint="the host is busy: measure when nobody else asks",
            )
        return LoadRow(
            users,
            len(first),
            sum(one.refused for one in seen),
            sum(one.tokens for one in seen),
            round(took_s * 1000),
            _milliseconds(first, 50),
            _milliseconds(first, 95),
        )

    def _ask_until(self, until: float, stop: Event, model: str, user: int) -> _Seen:
        seen, number = _Seen(), 0
        try:
            while not stop.is_set() and (number == 0 or time.monotonic() < until):
                wait_s = self._ask(seen, model, f"{user}.{number}")
                number += 1
                if wait_s:
                    stop.wait(min(wait_s, max(0.0, until - time.monotonic())))
        except BaseException:
            stop.set()
            raise
        return seen

    def _ask(self, seen: _Seen, model: str, name: str) -> float:
        """Ask once; gives the seconds to wait where the request was sent away."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": make_prompt(name)}],
            "max_tokens": self._max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        connection, began = self._connect(), time.monotonic()
        try:
            connection.request("POST", CHAT, json.dumps(body), self._headers)
            reply = connection.getresponse()
            if reply.status == _BUSY:
                reply.read()
                seen.refused += 1
                return float(reply.headers.get("retry-after", "1"))
            if reply.status != 200:
                raise _refused(json.loads(reply.read()), reply.status)
            self._read(reply, seen, began)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _broken(str(error) or type(error).__name__) from None
        finally:
            connection.close()
        return 0.0

    def _read(self, reply: http.client.HTTPResponse, seen: _Seen, began: float) -> None:
        first_s, tokens, is_complete = None, 0, False
        while line := reply.readline():
            if line.strip() == b"data: [DONE]":
                is_complete = True
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[len(b"data: ") :])
            if "error" in event:
                raise _refused(event, reply.status)
            if first_s is None and any((one.get("delta") or {}).get("content") for one in event.get("choices", ())):
                first_s = time.monotonic() - began
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
        if not is_complete:
            raise _broken("the stream broke off")
        # An answer without a text counts from its end.
        seen.first_token_s.append(time.monotonic() - began if first_s is None else first_s)
        seen.tokens += tokens


def make_prompt(name: str) -> str:
    """The prompt of one request, which begins as no other does.

    Args:
        name: of the user and the request.
    """
    words = " ".join(f"word{name}{number}" for number in range(_WORDS))
    return f"{name}: {words}. Tell a long story with these words."


def _milliseconds(values: Sequence[float], percent: int) -> int:
    return round(values[max(0, math.ceil(len(values) * percent / 100) - 1)] * 1000)


def _refused(value: Any, status: int) -> ApplianceError:
    error = value.get("error") if isinstance(value, dict) else None
    code, message = (error.get("code"), error.get("message")) if isinstance(error, dict) else ("", "")
    if status in (401, 403):
        return UsageError(
            "bench.key-refused",
            str(code),
            expected="a key that may chat with the model",
            found=str(message),
            hint="name a file with such a key: --key-file FILE",
        )
    return ApplianceError("bench.refused", str(code), expected="an answer", found=f"{status}: {message}")


def _broken(found: str) -> ApplianceError:
    return ApplianceError(
        "bench.broken-answer",
        "gateway",
        expected="a whole answer",
        found=found,
        hint="see `appliance status`, and the log of the gateway",
    )
