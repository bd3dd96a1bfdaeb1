"""Whether the end of an engine speaks of the disk: then it is an incident, and no crash.

Owns this judgement, for engines of systemd and of `appliance serve`. A crash is tried again; an incident is not, since
the next start would serve from the same bytes.
"""

from __future__ import annotations

import errno
import os
import signal
from datetime import datetime
from pathlib import Path

from appliance.host.models.incident import BUS_ERROR, UNREADABLE, Incident, make_incident
from signing.digest import Digest

HEAD_BYTES = 64 << 20
_READ_BYTES = 1 << 20
BUS_EXIT = 128 + signal.SIGBUS
"""The exit status of an engine that touched a page which the kernel could not give. The seal refused the page, the disk
did not read it, or the file was cut."""


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
    if is_head_readable(store):
        return None
    return make_incident(model, file, UNREADABLE, f"the first {HEAD_BYTES >> 20} MiB of {store}", now)


def is_head_readable(path: Path) -> bool:
    """Whether the disk gives the part of a model that an engine reads by itself: at most `HEAD_BYTES`.

    Args:
        path: of the model on this host.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            for at in range(0, HEAD_BYTES, _READ_BYTES):
                if not os.pread(file.fileno(), _READ_BYTES, at):
                    break
    except OSError as error:
        return error.errno != errno.EIO
    return True
