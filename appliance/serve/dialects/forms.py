"""The dialect of each route: the model of its body, the chat that it means, and the form of its answer.

Owns the way from a body to what every engine is asked, and the names that a refusal gives its fields on the way back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from appliance.serve.dialects import messages_chat, responses_chat
from appliance.serve.dialects.answer_form import AnswerForm, StreamWriter
from appliance.serve.dialects.chat_answer import as_object, read_answer
from appliance.serve.dialects.chat_stream import ChatStream
from appliance.serve.dialects.conversation import Fields, Renamed, rename_field
from appliance.serve.dialects.messages_answer import MessageStream, write_message
from appliance.serve.dialects.messages_request import MessagesRequest, TokenCountRequest
from appliance.serve.dialects.responses_answer import ResponseBody, ResponseStream
from appliance.serve.dialects.responses_request import ResponsesRequest
from appliance.serve.requests.chat import ChatRequest
from appliance.serve.requests.fields import RequestModel, first_refusal
from appliance.serve.requests.paths import (
    CHAT_TOKENS,
    COUNT_TOKENS,
    INPUT_TOKENS,
    MESSAGES,
    RESPONSES,
    ROUTES,
)
from appliance.serve.requests.refusal import Refusal
from appliance.serve.requests.work import MODELS, ParsedRequest, Work, parse_request
from appliance.serve.upstream.connection import LostError

DIALECT_MODELS: dict[str, type[ResponsesRequest | TokenCountRequest]] = {
    RESPONSES: ResponsesRequest,
    INPUT_TOKENS: ResponsesRequest,
    MESSAGES: MessagesRequest,
    COUNT_TOKENS: TokenCountRequest,
}
"""Of the routes whose body is another dialect's."""
REQUEST_MODELS: dict[str, type[RequestModel]] = {**MODELS, **DIALECT_MODELS}
"""The model of every route's body."""


class DialectForm(AnswerForm):
    """The form of another dialect.

    Args:
        route: the path that was asked for.
        renamed: the names that the client has for fields of a chat.
        places: the field that each message came from.
    """

    def __init__(self, route: str, renamed: Renamed, places: list[str]) -> None:
        super().__init__(route, ROUTES[route].dialect)
        self._renamed, self._places = renamed, places
        self._stream: ChatStream | None = None

    def refused(self, refusal: Refusal) -> Refusal:
        """See `AnswerForm`."""
        if refusal.param is None:
            return refusal
        field = rename_field(refusal.param, self._places, self._renamed)
        message = refusal.message.replace(repr(refusal.param), repr(field))
        return Refusal(refusal.status, refusal.code, message, param=field, headers=refusal.headers)

    def writer(self) -> StreamWriter | None:
        """See `AnswerForm`."""
        self._stream = self.begin_stream()
        return self._stream

    def begin_stream(self) -> ChatStream:
        """What translates the stream."""
        raise NotImplementedError

    def error_event(self, refusal: Refusal) -> bytes:
        """See `AnswerForm`."""
        if self._stream is None:
            return super().error_event(refusal)
        return self._stream.begin_once() + self._stream.fail(refusal)


class ResponsesForm(DialectForm):
    """The form of Responses.

    Args:
        route: the path that was asked for.
        asked: the request.
        places: the field that each message came from.
    """

    def __init__(self, route: str, asked: ResponsesRequest, places: list[str]) -> None:
        super().__init__(route, responses_chat.RENAMED, places)
        self._model = asked.model
        # Schemas are written anew for the engine; the response repeats them as they were sent.
        self._body = ResponseBody(responses_chat.echo_fields(asked))

    def whole(self, value: Fields) -> Fields:
        """See `AnswerForm`."""
        return self._body.write_answer(read_answer(value))

    def begin_stream(self) -> ChatStream:
        """See `DialectForm`."""
        return ResponseStream(self._model, self._body)


class MessagesForm(DialectForm):
    """The form of Messages.

    Args:
        route: the path that was asked for.
        model: its name.
        places: the field that each message came from.
    """

    def __init__(self, route: str, model: str, places: list[str]) -> None:
        super().__init__(route, messages_chat.RENAMED, places)
        self._model = model

    def whole(self, value: Fields) -> Fields:
        """See `AnswerForm`."""
        return write_message(read_answer(value), self._model)

    def begin_stream(self) -> ChatStream:
        """See `DialectForm`."""
        return MessageStream(self._model)


class TokenCountForm(DialectForm):
    """The form of a count of tokens: of what an engine would read for a chat."""

    def adapt(self, work: Work) -> Work:
        """See `AnswerForm`."""
        return replace(work, path=CHAT_TOKENS, is_stream=False, forced=None)

    def whole(self, value: Fields) -> Fields:
        """See `AnswerForm`."""
        count = as_object(value).get("input_tokens")
        if type(count) is not int or count < 0:
            raise LostError("a count that is none")
        kind = {"object": "response.input_tokens"} if self.route == INPUT_TOKENS else {}
        return {**kind, "input_tokens": count}


def read_request(route: str, body: dict[str, Any]) -> tuple[ParsedRequest, AnswerForm]:
    """Check the fields of a request, and find what it means.

    Args:
        route: one of `ROUTES`.
        body: untrusted.

    Returns:
        The request in OpenAI's own form, and the form that its answer has.

    Raises:
        Refusal: a field is unknown, not supported, missing, or not of its type and range.
    """
    if route not in DIALECT_MODELS:
        return parse_request(route, body), AnswerForm(route)
    try:
        asked = DIALECT_MODELS[route].model_validate(body)
    except ValidationError as error:
        raise first_refusal(error, body) from None
    form: DialectForm
    if isinstance(asked, ResponsesRequest):
        made = responses_chat.make_conversation(asked)
        fields = responses_chat.chat_fields(asked, made.messages)
        renamed, form = responses_chat.RENAMED, ResponsesForm(route, asked, made.places)
    else:
        made = messages_chat.make_conversation(asked)
        fields = messages_chat.chat_fields(asked, made.messages)
        renamed, form = messages_chat.RENAMED, MessagesForm(route, asked.model, made.places)
    if route in (COUNT_TOKENS, INPUT_TOKENS):
        form = TokenCountForm(route, renamed, made.places)
    return make_chat(fields, form), form


def make_chat(fields: Fields, form: AnswerForm) -> ChatRequest:
    """The chat: its own limits hold for what several items or blocks make together."""
    try:
        return ChatRequest.model_validate(fields)
    except ValidationError as error:
        raise form.refused(first_refusal(error, fields)) from None
