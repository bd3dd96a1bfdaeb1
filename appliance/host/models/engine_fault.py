"""Whether the end of an engine speaks of the disk: then it is an incident, and no crash.

Owns this judgement, for engines of systemd and of `appliance serve`. A crash is tried again; an incident is not, since
the next start would serve from the same bytes.
"""

from __future__ import annotations

import signal
from datetime import datetime
from pathlib import Path

from appliance.host.models.incident import BUS_ERROR, Incident, make_incident
from appliance.host.models.scrub import head_fault
from signing.digest import Digest

BUS_EXIT = 128 + signal.SIGBUS
"""The exit status of an engine that touched a page which the kernel could not give: the seal refused it, the disk did
not read it, or the file was cut."""


def end_incident(model: str, file: Digest, store: Path, code: int, now: datetime) -> Incident | None:
    """Judge the end of an engine that nobody stopped.

    Args:
        model: its name.
        file: sha256 of the model's file, as signed.
        store: where the file lies on this host.
        code: its exit status; 128 and the signal's number where a signal ended it.
        now: the clock, in UTC.

    Returns:
        The incident; None where the engine has crashed for another reason.
    """
    if code == BUS_EXIT:
        return make_incident(model, file, BUS_ERROR, "the kernel ended its engine by SIGBUS", now)
    # What an engine reads and does not map ends in an error of its own.
    fault = head_fault(store)
    return None if fault is None else make_incident(model, file, fault.cause, fault.detail, now)
