"""Talking to an engine over its UNIX socket, whoever started it.

Owns the requests that this program itself makes: whether the engine is ready, one question without randomness, and the
embeddings of a few texts.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from signing.errors import ApplianceError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """What an engine said: the text, how many tokens it took, and why it ended (`stop` or `length`)."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str


@dataclass(frozen=True, slots=True)
class EngineClient:
    """An engine that listens somewhere.

    Args:
        name: the model's name, for errors.
        socket: where it listens.
        log: where its log is, in words for a hint.
    """

    name: str
    socket: Path
    log: str

    def is_healthy(self) -> bool:
        """Whether the model is loaded and the engine answers."""
        try:
            return self._request("GET", "/health", None, 5.0)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def chat(self, prompt: str, max_tokens: int, timeout_s: float = 120.0) -> EngineAnswer:
        """Ask one question, without randomness.

        Args:
            prompt: the user's message.
            max_tokens: where the answer is cut.
            timeout_s: for the whole answer.

        Raises:
            ApplianceError: the engine did not answer, or not as it should.
        """
        body = {
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "seed": 1,
        }
        return self._post("/v1/chat/completions", body, timeout_s, _read_answer)

    def embed(self, texts: Sequence[str], timeout_s: float = 120.0) -> list[list[float]]:
        """The embeddings of some texts, in their order.

        Args:
            texts: at least one.
            timeout_s: for all of them.

        Raises:
            ApplianceError: the engine did not answer, or not as it should.
        """
        return self._post("/v1/embeddings", {"input": list(texts)}, timeout_s, _read_embeddings)

    def _post(self, path: str, body: dict[str, Any], timeout_s: float, read: Callable[[bytes], T]) -> T:
        try:
            status, data = self._request("POST", path, json.dumps(body).encode(), timeout_s)
            if status == 200:
                return read(data)
            found = f"status {status}: {data[:200].decode('utf-8', 'replace')}"
        except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
            found = f"{type(error).__name__}: {error}"
        raise ApplianceError(
            "engine.no-answer", self.name, expected="an answer", found=found, hint=f"see its log: {self.log}"
        )

    def _request(self, method: str, path: str, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        connection = _UnixConnection(self.socket, timeout_s)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def _read_answer(data: bytes) -> EngineAnswer:
    value = json.loads(data)
    choice, usage = value["choices"][0], value["usage"]
    return EngineAnswer(
        str(choice["message"]["content"]),
        int(usage["prompt_tokens"]),
        int(usage["completion_tokens"]),
        str(choice["finish_reason"]),
    )


def _read_embeddings(data: bytes) -> list[list[float]]:
    rows = sorted(json.loads(data)["data"], key=lambda row: int(row["index"]))
    return [[float(number) for number in row["embedding"]] for row in rows]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("engine", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path; there is no host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
