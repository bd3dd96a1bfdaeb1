"""The host of an install: the machine, and what the person who runs it has chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from appliance.host.layout.prefix import Prefix
from appliance.host.machine.card import Card


@dataclass(frozen=True, slots=True)
class Host:
    """Where to install, on what, and as which user.

    Args:
        prefix: where to install.
        card: the machine; its system, processor and memory suffice.
        now: the clock, in UTC.
        search_path: the caller's PATH, for finding a Python.
        is_root: whether this program may change all of the machine.
        override: the file of an expiry override that the operator hands in, untrusted; None where there is none.
    """

    prefix: Prefix
    card: Card
    now: Callable[[], datetime]
    search_path: str
    is_root: bool = False
    override: bytes | None = None
