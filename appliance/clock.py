"""The machine's clock, read in one place and handed on as a value."""

from __future__ import annotations

from datetime import datetime, timezone


def utc_now() -> datetime:
    """The present moment in UTC. It gives dates and warnings; no decision about trust rests on it alone."""
    return datetime.now(timezone.utc)
