"""The client of an engine: HTTP over the engine's UNIX socket.

Owns the requests that this program itself sends: a health check, one chat completion without randomness, embeddings of
texts, and scores of documents. It works with any engine that listens, whether this
program started it or systemd.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from appliance.host.engine.state import RESTARTING, SERVING, STARTING, STOPPED, UNLOADED, EngineState, read_state
from signing.errors import ApplianceError

T = TypeVar("T")
_MAX_ANSWER_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """A chat completion: the text, the tokens of prompt and text, and why the text ended (`stop` or `length`)."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str


@dataclass(frozen=True, slots=True)
class EngineClient:
    """A client of one engine.

    Args:
        name: the model's name, for errors.
        socket: the path of the UNIX socket that the engine listens on.
        log: where the engine's log is, as text for a hint.
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

    def state(self) -> EngineState:
        """The state of the engine now: what is written beside its socket, and whether it answers.

        Returns:
            `SERVING` only where it answers, and what started it has written a state.
        """
        written = read_state(self.socket)
        if written is None:
            return EngineState(RESTARTING)
        if written.status == STOPPED:
            return written
        if written.status != UNLOADED and self.is_healthy():
            return replace(written, status=SERVING, reason="")
        if written.status in (STARTING, UNLOADED) and _exists(written.pid):
            return written
        return EngineState(RESTARTING, written.reason)

    def chat(self, prompt: str, max_tokens: int, timeout_s: float = 120.0) -> EngineAnswer:
        """Request one chat completion, without randomness.

        Args:
            prompt: the user's message.
            max_tokens: where the answer is cut.
            timeout_s: for connecting and for each read, in seconds.

        Raises:
            ApplianceError: the engine did not answer, or with another status or form.
        """
        body = {
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "seed": 1,
        }
        return self._post("/v1/chat/completions", body, timeout_s, _read_answer)

    def embed(self, texts: Sequence[str], timeout_s: float = 120.0) -> list[list[float]]:
        """Request the embeddings of some texts.

        Args:
            texts: at least one.
            timeout_s: for connecting and for each read, in seconds.

        Returns:
            One embedding for each text, in the order of the texts.

        Raises:
            ApplianceError: the engine did not answer, or with another status or form.
        """
        return self._post("/v1/embeddings", {"input": list(texts)}, timeout_s, _read_embeddings)

    def rank(self, query: str, documents: Sequence[str], timeout_s: float = 120.0) -> list[float]:
        """Request how well some documents answer a query.

        Args:
            query: what is searched for.
            documents: at least one.
            timeout_s: for connecting and for each read, in seconds.

        Returns:
            One score for each document, in the order of the documents; a higher one is better.

        Raises:
            ApplianceError: the engine did not answer, or with another status or form.
        """
        return self._post("/v1/rerank", {"query": query, "documents": list(documents)}, timeout_s, _read_scores)

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
            return response.status, response.read(_MAX_ANSWER_BYTES)
        finally:
            connection.close()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return pid > 0


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


def _read_scores(data: bytes) -> list[float]:
    rows = sorted(json.loads(data)["results"], key=lambda row: int(row["index"]))
    return [float(row["relevance_score"]) for row in rows]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("engine", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the path of the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
