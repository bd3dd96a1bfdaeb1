"""How an answer is written for its client: here OpenAI's own form, in which the engine answers.

A form of another dialect overrides what differs. It belongs to one request.

Rules:
- nothing of a stream is held back: each event is translated when it has come;
- an error has the form of the dialect, in the middle of a stream, too, and names the field as its client sent it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from appliance.serve.requests.json_text import to_json
from appliance.serve.requests.paths import OPENAI
from appliance.serve.requests.refusal import Refusal

if TYPE_CHECKING:
    from appliance.serve.requests.work import Work


class StreamWriter(Protocol):
    """Gives what a user gets of an engine's stream."""

    has_failed: bool

    def feed(self, block: bytes, piece: int) -> bytes:
        """Take what an engine sent, and give what the user gets of it; raises `LostError` for what is no stream."""

    def end(self) -> bytes:
        """The end of a stream that is complete; raises `LostError` where it is not."""


class AnswerForm:
    """OpenAI's form.

    Args:
        route: the path that was asked for.
        dialect: of its errors.
    """

    def __init__(self, route: str, dialect: str = OPENAI) -> None:
        self.route, self.dialect = route, dialect

    def adapt(self, work: Work) -> Work:
        """What the engine has to do, where that is not what a chat asks for."""
        return work

    def whole(self, value: dict[str, Any]) -> dict[str, Any]:
        """An answer of the engine that is no error, as the client gets it.

        Raises:
            LostError: the engine's answer has another shape.
        """
        return value

    def writer(self) -> StreamWriter | None:
        """What translates the stream; None where it is passed on as it comes."""
        return None

    def refused(self, refusal: Refusal) -> Refusal:
        """A refusal with the names of fields that the client sent."""
        return refusal

    def error_event(self, refusal: Refusal) -> bytes:
        """An error in the middle of a stream, after which nothing comes."""
        return b"data: " + to_json(refusal.body(self.dialect)) + b"\n\n"

    def engine_error(self, value: dict[str, Any], status: int) -> dict[str, Any]:
        """An error of the engine, as the client gets it.

        Args:
            value: as the engine wrote it.
            status: of HTTP.
        """
        return self.refused(engine_refusal(value, status)).body(self.dialect)


def as_event(value: dict[str, Any]) -> bytes:
    """An event of a stream with its type as its name, as Responses and Messages have it."""
    return b"event: " + str(value["type"]).encode() + b"\ndata: " + to_json(value) + b"\n\n"


def engine_refusal(value: dict[str, Any], status: int) -> Refusal:
    """The refusal that an error of the engine means.

    Args:
        value: as the engine wrote it; anything.
        status: of HTTP.
    """
    error = value.get("error")
    error = error if isinstance(error, dict) else {}
    kind, code, message, param = (error.get(name) for name in ("type", "code", "message", "param"))
    # The engine's own code is the status once more, and its type states what is wrong.
    chosen = code if isinstance(code, str) else kind if isinstance(kind, str) else "engine_error"
    text = message if isinstance(message, str) else "The engine failed."
    return Refusal(status, chosen, text, param=param if isinstance(param, str) else None)
