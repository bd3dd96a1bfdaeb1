"""Messages from the supervisor to the gateway's process: the plan at its start, then an event for each engine's state.

Owns both messages and their format. They travel through descriptors from parent to child, never through files that
somebody could change in between. The parent may be of another version. A program refuses a field that it does not
know, so a field of later versions is sent only where it differs from its default.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from appliance.host.engine.state import EngineState, parse_state
from appliance.host.site.limits import USUAL_LIMITS, Limits
from appliance.host.tls.files import TlsFiles

_ALWAYS = ("embedding",)
"""Fields that are sent with their default value, too, as version 0.1.0 does."""
_STATE_FIELDS = ("level", "isolation", "reason")


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """One model that the gateway passes requests to.

    Args:
        name: the model's name, as users give it in requests.
        socket: the path where its engine listens.
        slots: requests that the engine works on at once.
        context: tokens of one conversation.
        sha256: of the model's file.
        template: sha256 of its chat template; empty where it has none.
        embedding: numbers of an embedding; 0 for a model that chats.
        task: `rerank` for a model that sorts documents; empty where `embedding` states it.
        keep_alive: seconds without a request after which it is unloaded; 0 for a model that is always loaded, and
            `load_mark.FOR_EVER` for one that is unloaded only where another needs its room.
        mark: path of the file by which the gateway has it loaded; empty for a model that is always loaded.
        memory: bytes that it takes while it is loaded; 0 for a model that is always loaded.
    """

    name: str
    socket: str
    slots: int
    context: int
    sha256: str
    template: str
    embedding: int = 0
    keep_alive: int = 0
    task: str = ""
    mark: str = ""
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What the gateway serves, and the digests that every answer names.

    Args:
        release: the bundle's name and version, for people.
        manifest: sha256 of the bundle's manifest.
        policy: sha256 of the gateway's configuration.
        engine: sha256 of the runtime wheel that the engine's program and libraries come from.
        access: path of the database of keys.
        models: at least one.
        limits: of what waits.
        tls: the files of TLS; None for plain http.
        cors: origins of pages in browsers that may read answers.
    """

    release: str
    manifest: str
    policy: str
    engine: str
    access: str
    models: tuple[PlannedModel, ...]
    limits: Limits = USUAL_LIMITS
    tls: TlsFiles | None = None
    cors: tuple[str, ...] = ()
    room: int = 0

    def to_bytes(self) -> bytes:
        """Serialize the plan as JSON."""
        value = {**_without_defaults(self), "models": [_without_defaults(model) for model in self.models]}
        if "limits" in value:
            value["limits"] = self.limits.to_json()
        if self.tls is not None:
            value["tls"] = self.tls.to_json()
        return json.dumps(value).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        """Parse what `to_bytes` wrote."""
        value = json.loads(data)
        value["models"] = tuple(PlannedModel(**model) for model in value["models"])
        value["limits"] = Limits.from_json(value.get("limits", {}))
        value["tls"], value["cors"] = TlsFiles.from_json(value.get("tls", {})), tuple(value.get("cors", ()))
        return cls(**value)


def _without_defaults(message: Plan | PlannedModel) -> dict[str, Any]:
    """The fields of a message, without those that hold what a reader of any version assumes."""
    return {
        known.name: getattr(message, known.name)
        for known in fields(message)
        if known.name in _ALWAYS or getattr(message, known.name) != known.default
    }


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """The state of one engine has changed.

    Args:
        model: the model's name.
        state: the new state; its `pid` is not sent.
    """

    model: str
    state: EngineState

    def to_line(self) -> bytes:
        """Serialize the event as one line of JSON."""
        value = {"model": self.model, "state": self.state.status}
        value |= {name: getattr(self.state, name) for name in _STATE_FIELDS}
        return json.dumps(value).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> EngineEvent:
        """Parse what `to_line` wrote, of this version or another."""
        value = json.loads(line)
        fields = {"status": value["state"], **{name: value[name] for name in _STATE_FIELDS}, "pid": 0}
        return cls(value["model"], parse_state(fields))
