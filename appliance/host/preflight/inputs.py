"""The host of an install: the machine, and what the person who runs it has chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance.host.layout.prefix import Prefix
from appliance.host.machine.card import Card
from appliance.host.preflight.surroundings import Surroundings
from bundles.stick.media_set import Waiting


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
        is_root_compared: whether the operator has compared the root that the install verifies against with fingerprints
            from paper, by `compare_root`; where none is pinned, the install then pins it.
        may_go_back: whether the operator has stated that an older bundle than the release that serves is meant.
        plan: the file of an install plan that must still hold, untrusted; None where there is none.
        around: what else is at work on the machine; None where nobody has looked.
    """

    prefix: Prefix
    card: Card
    now: Callable[[], datetime]
    search_path: str
    is_root: bool = False
    override: bytes | None = None
    is_root_compared: bool = False
    may_go_back: bool = False
    plan: bytes | None = None
    around: Surroundings | None = None


@dataclass(frozen=True, slots=True)
class SourceMedia:
    """The media that a bundle is installed from.

    Args:
        paths: untrusted; at least one: bundles' folders or sticks that together hold it.
        select: `NAME-VERSION` of the wanted bundle, where several lie there.
        waiting: how to wait for further media; None where nobody waits.
    """

    paths: tuple[Path, ...]
    select: str = ""
    waiting: Waiting | None = None

    @property
    def name(self) -> str:
        """The paths, for people."""
        return ", ".join(map(str, self.paths))
