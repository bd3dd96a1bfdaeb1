"""How a release is that serves: the answers of one observation."""

from __future__ import annotations

from enum import Enum


class Health(Enum):
    """What an observation of a release found.

    `READY`: users reach every model. `WAITING`: something starts, or starts again. `STOPPED`: a person has stopped a
    service. `FAILED`: a service has given up.
    """

    READY = "ready"
    WAITING = "waiting"
    STOPPED = "stopped"
    FAILED = "failed"
