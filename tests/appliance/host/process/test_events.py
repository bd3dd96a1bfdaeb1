"""Events hold what the allow-list names, and nothing else."""

from __future__ import annotations

import pytest

from appliance.events import ACCESS_GRANTED, FIELDS, KINDS, MAX_TEXT, Event, ignore, send_all


def test_event_is_sent_to_every_sink() -> None:
    first: list[Event] = []
    second: list[Event] = []
    event = Event(ACCESS_GRANTED, {"key": "0123456789ab", "priority": 2})
    send_all(first.append, ignore, second.append)(event)
    assert first == second == [event]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("access.granted ", {}),
        (ACCESS_GRANTED, {"name": "ann"}),
        (ACCESS_GRANTED, {"priority": "2"}),
        (ACCESS_GRANTED, {"priority": True}),
        (ACCESS_GRANTED, {"key": "a\nb"}),
        (ACCESS_GRANTED, {"key": "x" * (MAX_TEXT + 1)}),
    ],
)
def test_event_with_anything_else_is_refused(kind: str, fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="of event|of an event"):
        Event(kind, fields)


def test_no_field_is_made_for_a_text_of_a_user() -> None:
    assert not {"name", "prompt", "content", "text", "message", "address", "user"} & set(FIELDS)
    assert all(kind == kind.lower() and kind.isascii() for kind in KINDS)
