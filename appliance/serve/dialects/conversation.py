"""The messages of a chat, put together from the items or blocks of another dialect.

Owns two things that chat templates expect. There is one message of the system, at the beginning. What a model wrote in
one turn is one message. It also keeps where each message came from, so that a refusal names what the client sent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

Fields = dict[str, Any]
Renamed = Sequence[tuple[str, str]]
"""Fields of a chat, each as a pattern, and the name that a client of another dialect has for it."""


def rename_field(field: str, places: list[str], renamed: Renamed) -> str:
    """The name of a chat's field as its client sent it.

    Args:
        field: its path.
        places: the field that each message came from.
        renamed: of the client's dialect.
    """
    found = re.match(r"messages\[(\d+)\]", field)
    if found is not None and int(found[1]) < len(places):
        return places[int(found[1])]
    for pattern, name in renamed:
        other, count = re.subn(f"^{pattern}", name, field)
        if count:
            return other
    return field


class Conversation:
    """Messages as `POST /v1/chat/completions` has them.

    Attributes:
        messages: so far.
        places: the field that each came from.
    """

    def __init__(self) -> None:
        self.messages: list[Fields] = []
        self.places: list[str] = []

    def add(self, message: Fields, place: str) -> None:
        """Add a message as it is.

        Args:
            message: with `role` and `content`.
            place: the field that it came from.
        """
        self.messages.append(message)
        self.places.append(place)

    def add_instruction(self, text: str, place: str) -> None:
        """Add a message of the system. One that follows another is part of it: many templates take one only."""
        if self.messages and self.messages[-1]["role"] == "system":
            self.messages[-1]["content"] += f"\n\n{text}"
            return
        self.add({"role": "system", "content": text}, place)

    def add_user(self, text: str, place: str) -> None:
        """Add a text of the user. One that follows another is part of the same message."""
        last = self.messages[-1] if self.messages else {}
        if last.get("role") == "user":
            last["content"] = [*_as_parts(last["content"]), *_as_parts(text)]
            return
        self.add({"role": "user", "content": text}, place)

    def add_answer(self, place: str, *, text: str = "", reasoning: str = "", call: Fields | None = None) -> None:
        """Add a part of what the model wrote. Parts that follow one another in their order are one message.

        Args:
            place: the field that it came from.
            text: of the answer.
            reasoning: of before the answer.
            call: of a function, as `tool_calls` has them.
        """
        last = self._answer_for(text, reasoning, place)
        if reasoning:
            last["reasoning_content"] = last.get("reasoning_content", "") + reasoning
        if text:
            last["content"] += text
        if call is not None:
            last.setdefault("tool_calls", []).append(call)

    def _answer_for(self, text: str, reasoning: str, place: str) -> Fields:
        """The message that a part belongs to: reasoning comes before a text, and a text before calls."""
        last = self.messages[-1] if self.messages else {}
        is_over = last.get("role") != "assistant" or (text and "tool_calls" in last)
        if is_over or (reasoning and (last["content"] or "tool_calls" in last)):
            self.add({"role": "assistant", "content": ""}, place)
        return self.messages[-1]


def text_parts(texts: list[str]) -> str | list[Fields]:
    """The content of a message of several texts."""
    return texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]


def _as_parts(content: str | list[Fields]) -> list[Fields]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
