"""How often something on this machine tried to reach another one, where the site has that counted.

Owns what `appliance status` and the record of `appliance verify --evidence` state about it. The unit
`appliance-egress.service` counts, by rules of nftables that let every packet pass. Nothing is changed here.

Rules (threats T34, T130, T131):
- the services of the appliance must not try: one packet of theirs is an error;
- packets of other programs are stated, and are no error: a machine may have other duties;
- a counter that is gone, or whose rules are not the loaded ones, is an error, never a count of 0.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance.host.layout.places import SITE_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.layout.unit_files import EGRESS_UNIT, has_egress
from appliance.host.process import nftables
from appliance.host.release.release import Release, open_current
from appliance.host.site.config import read_site
from signing.errors import ApplianceError, DriftError
from signing.strictjson import Json

TABLE, SERVICES, OTHERS = "appliance_egress", "services", "others"
STATE = Path("/run/appliance-egress")
"""Where the unit leaves `since`, the time of its first start after a boot, and `rules`, as it loaded them."""
_TIME = re.compile(r"[0-9TZ:-]{1,24}")
_RESTART = f"systemctl restart {EGRESS_UNIT}"


@dataclass(frozen=True, slots=True)
class EgressCount:
    """What was counted since the counter was started, at the last boot or later.

    Args:
        services: packets of the appliance's services to another machine or to a name server; None where the counter
            is gone, or this user may not read it.
        others: packets of all other programs to another machine; None likewise.
        since: the time of the counter's start by this machine's clock; empty where it is unknown.
    """

    services: int | None
    others: int | None
    since: str

    @property
    def is_known(self) -> bool:
        """Whether there are numbers."""
        return self.services is not None and self.others is not None


def read_egress(release: Release) -> tuple[EgressCount | None, list[ApplianceError]]:
    """Read the counter, and judge it.

    Args:
        release: the one that serves.

    Returns:
        The count, or None where the site wants none; and one error for each thing that is not as it must be.
    """
    if not is_counted(release.prefix, release):
        return None, []
    if os.geteuid() != 0:
        return EgressCount(None, None, ""), []
    counters = nftables.read_counters(TABLE) or {}
    count = EgressCount(counters.get(SERVICES), counters.get(OTHERS), _read_time(STATE / "since"))
    return count, [*rule_problems(counters, nftables.read_rules(TABLE)), *attempt_problems(count)]


def describe_egress(count: EgressCount) -> str:
    """Format a count as one line for people."""
    if not count.is_known:
        return "to reach another machine: unknown (root alone may read the counter, or it is gone)"
    return (
        f"to reach another machine: {count.services} packets of the services, {count.others} of other programs, "
        f"since {count.since or 'its start'}"
    )


def recorded_egress(prefix: Prefix, now: datetime) -> dict[str, Json]:
    """The count as a member `egress` for a signed record; no member where the site does not count.

    Args:
        prefix: the host that signs.
        now: the clock, in UTC.
    """
    try:
        count, problems = read_egress(open_current(prefix, now))
    except ApplianceError:
        return {}
    if count is None:
        return {}
    numbers: dict[str, Json] = {"services": count.services, "others": count.others, "since": count.since}
    return {"egress": {**numbers, "problems": [problem.code for problem in problems]}}


def is_counted(prefix: Prefix, release: Release) -> bool:
    """Whether the site wants its attempts counted, and the release can."""
    if not prefix.is_system or not has_egress(release.contents):
        return False
    try:
        return read_site(release.path / SITE_FILE).egress == "count"
    except ApplianceError:
        return False  # `check_release` reports a copy of the site's file that was changed


def attempt_problems(count: EgressCount) -> Iterator[ApplianceError]:
    """One error where a service of the appliance tried to reach another machine (threat T130)."""
    if count.services:
        yield DriftError(
            "egress.attempts",
            EGRESS_UNIT,
            expected="0 packets of the appliance's services to another machine",
            found=f"{count.services} since {count.since or 'its start'}",
            hint=f"find out which program it was, and ask who built the bundle; then start anew: {_RESTART}",
        )


def rule_problems(counters: Mapping[str, int], rules: str) -> Iterator[ApplianceError]:
    """One error where the counter is gone, or its rules are not those that the unit loaded (threat T131)."""
    loaded = _read_text(STATE / "rules")
    if set(counters) != {SERVICES, OTHERS} or not loaded:
        found = "none: another program has emptied the tables, or the unit does not run"
    elif rules != loaded:
        found = "other rules than those that were loaded"
    else:
        return
    yield DriftError(
        "egress.not-counted",
        f"nftables table inet {TABLE}",
        expected=f"the counter that {EGRESS_UNIT} has loaded",
        found=found,
        hint=_RESTART,
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _read_time(path: Path) -> str:
    text = _read_text(path).strip()
    return text if _TIME.fullmatch(text) else ""
