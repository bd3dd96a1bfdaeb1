"""What an operator may want to know of an engine or the gateway, as one line.

Owns the lines. `appliance serve` prints them; the program at the end of an engine's unit writes them to the journal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from appliance.events import ENGINE_RESTARTED, MAX_TEXT, MODEL_STOPPED, Event
from appliance.events import INCIDENT as STOPPED_FOR_BYTES
from signing.errors import ApplianceError

READY, ENDED, INCIDENT, UNREADABLE, GIVEN_UP = "ready", "ended", "incident", "unreadable", "given-up"
FOLLOWED, KEPT = "followed", "kept"
GOOD, RETURNED = "good", "returned"
_WORDS = {
    READY: "serves",
    ENDED: "ended and is started again after another check",
    INCIDENT: "STOPPED: its bytes are not the signed ones",
    UNREADABLE: "STOPPED: its files cannot be read",
    GIVEN_UP: "stopped",
    FOLLOWED: "serves after a switch",
    GOOD: "is good: its trial has ended well",
    RETURNED: "serves again: the release on trial has failed",
    KEPT: "goes on, since the release that `current` names does not serve",
}


@dataclass(frozen=True, slots=True)
class ServiceEvent:
    """Something that an operator may want to know.

    Args:
        what: one of the names above.
        subject: the model, `gateway`, or the name and version of a bundle.
        detail: in words; no text of a user.
        next_step: what the operator can do.
        error: what was raised, for an incident.
    """

    what: str
    subject: str
    detail: str = ""
    next_step: str = ""
    error: ApplianceError | None = None

    @property
    def is_stop(self) -> bool:
        """Whether the subject does not serve until somebody acts."""
        return self.what in (INCIDENT, UNREADABLE, GIVEN_UP)

    def line(self) -> str:
        """The event as one line."""
        detail = f" ({self.detail})" if self.detail else ""
        following = f"; next: {self.next_step}" if self.next_step else ""
        return f"{self.subject} {_WORDS[self.what]}{detail}{following}"

    def event(self) -> Event | None:
        """The event for the journal and the audit log; None where nothing has stopped or ended."""
        kind = {
            ENDED: ENGINE_RESTARTED,
            INCIDENT: STOPPED_FOR_BYTES,
            UNREADABLE: STOPPED_FOR_BYTES,
            GIVEN_UP: MODEL_STOPPED,
        }
        if self.what not in kind:
            return None
        reason = "".join(one for one in self.detail if one.isprintable())[:MAX_TEXT]
        return Event(kind[self.what], {"model": self.subject, "reason": reason})


OnServiceEvent = Callable[[ServiceEvent], None]
