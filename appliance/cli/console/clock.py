"""The machine's clock, read in one place and handed on as a value."""

from __future__ import annotations

from datetime import datetime, timezone


def utc_now() -> datetime:
    """Now, in UTC. It warns and dates; it decides nothing about trust."""
    return datetime.now(timezone.utc)
