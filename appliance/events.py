"""Events of a host that somebody may have to account for: who was let in, what was refused, what was stopped.

Owns the closed list of kinds, and the names and forms of their fields. Where an event goes is for its sinks: the
journal of systemd, and an audit log.

Rules:
- no event holds a key, the name of a person, or a text of a user. A key is named by its public id, as it stands in
  `ak-<id>-<secret>`;
- a kind and a field that are not listed here are refused where the event is made, so that nothing slips into a sink;
- a sink must not raise and must not block: serving goes on whatever becomes of an event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Value = str | int | float | bool

ACCESS_GRANTED, ACCESS_ROTATED, ACCESS_REVOKED = "access.granted", "access.rotated", "access.revoked"
ACCESS_ENDED = "access.ended"
"""An answer was ended, since its key was revoked or has expired."""
REQUEST_ANSWERED, REQUEST_REFUSED = "request.answered", "request.refused"
USAGE_UNWRITTEN = "usage.unwritten"
"""The figures of usage cannot be written; serving goes on, and quotas hold in memory."""
MODEL_LOADED, MODEL_UNLOADED, MODEL_STOPPED = "model.loaded", "model.unloaded", "model.stopped"
ENGINE_SILENT, ENGINE_RESTARTED = "engine.silent", "engine.restarted"
INCIDENT, INCIDENT_CLEARED = "incident", "incident.cleared"
SCRUB_ENDED = "scrub.ended"
TLS_CREATED, TLS_RENEWED, TLS_RELOADED, TLS_REFUSED = "tls.created", "tls.renewed", "tls.reloaded", "tls.refused"

KINDS = frozenset(
    {
        *(ACCESS_GRANTED, ACCESS_ROTATED, ACCESS_REVOKED, ACCESS_ENDED),
        *(REQUEST_ANSWERED, REQUEST_REFUSED, USAGE_UNWRITTEN),
        *(MODEL_LOADED, MODEL_UNLOADED, MODEL_STOPPED, ENGINE_SILENT, ENGINE_RESTARTED),
        *(INCIDENT, INCIDENT_CLEARED, SCRUB_ENDED),
        *(TLS_CREATED, TLS_RENEWED, TLS_RELOADED, TLS_REFUSED),
    }
)
"""Every kind of event."""
FREQUENT = frozenset({REQUEST_ANSWERED, REQUEST_REFUSED})
"""Kinds of which each request makes one: for an audit log. Users could fill a journal that people read."""

FIELDS: Mapping[str, type] = {
    **dict.fromkeys(("key", "account", "role", "models", "quotas", "expires", "former"), str),
    **dict.fromkeys(("request", "route", "model", "code", "certificate"), str),
    **dict.fromkeys(("status", "tokens_in", "tokens_out", "priority", "seconds"), int),
    **dict.fromkeys(("queued_s", "took_s", "first_token_s"), float),
    **dict.fromkeys(("reason", "level", "digest", "release", "until", "size_class"), str),
    **dict.fromkeys(("is_stream", "is_repaired"), bool),
}
"""Every field and the type of its value. `key`, `account` and `former` are public ids of keys. A rotation ends
`former`. `models` is a list of names, `quotas` one of `name=number`. `certificate` is its sha256."""
MAX_TEXT = 512


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened.

    Args:
        kind: one of `KINDS`.
        fields: names from `FIELDS` with values of their types; texts of one line, at most `MAX_TEXT` characters.

    Raises:
        ValueError: a kind, name, type or text that is not allowed: a mistake in this program, never of a user.
    """

    kind: str
    fields: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no kind of event: {self.kind}")
        for name, value in self.fields.items():
            if name not in FIELDS or type(value) is not FIELDS[name]:
                raise ValueError(f"no field of an event: {name}, {type(value).__name__}")
            if isinstance(value, str) and (len(value) > MAX_TEXT or not value.isprintable()):
                raise ValueError(f"no text of an event: {name}")


OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Drop an event."""


def send_all(*sinks: OnEvent) -> OnEvent:
    """A sink that passes each event on to several others, in order."""

    def send(event: Event) -> None:
        for sink in sinks:
            sink(event)

    return send
