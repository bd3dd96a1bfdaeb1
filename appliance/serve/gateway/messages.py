"""What the supervisor tells the gateway: the plan at its start, and news about engines while it runs.

Owns both messages and their spelling. They travel through descriptors from parent to child, never through files that
somebody could change in between.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

SERVING, RESTARTING, STOPPED = "serving", "restarting", "stopped"


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """One model that the gateway passes questions to.

    Args:
        name: that users ask for.
        socket: where its engine listens.
        slots: how many conversations it holds at once.
        context: tokens of one conversation.
        sha256: of the model's file.
        template: sha256 of its chat template; empty where it has none.
        embedding: how many numbers an embedding by it has; 0 for a model that chats.
    """

    name: str
    socket: str
    slots: int
    context: int
    sha256: str
    template: str
    embedding: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What the gateway serves, and the digests that every answer names.

    Args:
        release: the bundle's name and version, for people.
        manifest: sha256 of the bundle's manifest.
        policy: sha256 of the gateway's configuration.
        engine: sha256 of the runtime wheel that the engine's program and libraries were taken from.
        access: path of the database of keys.
        models: at least one.
    """

    release: str
    manifest: str
    policy: str
    engine: str
    access: str
    models: tuple[PlannedModel, ...]

    def to_bytes(self) -> bytes:
        """Spell the plan."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        """Read what `to_bytes` wrote."""
        value = json.loads(data)
        return cls(**{**value, "models": tuple(PlannedModel(**model) for model in value["models"])})


@dataclass(frozen=True, slots=True)
class News:
    """What became of one engine.

    Args:
        model: whose.
        state: `SERVING`, `RESTARTING` or `STOPPED`.
        level: how its bytes are bound to the signed ones; see `appliance.host.models.served_file`.
        isolation: `netns` or `none`.
        reason: why it does not serve, for people.
    """

    model: str
    state: str
    level: str = ""
    isolation: str = ""
    reason: str = ""

    def to_line(self) -> bytes:
        """Spell the news as one line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> News:
        """Read what `to_line` wrote."""
        return cls(**json.loads(line))
