"""A plan as a file, and whether the world is still as it was planned: `install --plan FILE`.

Owns the JSON of a plan, and the comparison. What is compared is what a person has agreed to. How much is still to be
copied is not: an interrupted install goes on under its plan.

Rules:
- the same bundle, on the same host, from the same release to the same one, with the same decisions of the site;
- no package, unit, file, user or wait of users that the plan did not name;
- each file system that had room still has.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from appliance.host.install.planning.install_plan import InstallPlan
from appliance.host.install.planning.plan_details import PlanDetails, detail, read_journal
from appliance.host.install.planning.plan_times import total_seconds
from appliance.host.preflight.host_check import PreflightResult
from appliance.host.preflight.inputs import Host
from appliance.host.release.held_chunks import held_chunks
from appliance.host.release.held_source import HeldSource
from appliance.host.site.config import read_site
from bundles.stick.media_set import MediaSet
from signing.errors import HostUnfitError, NotTrustedError, UsageError
from signing.strictjson import load

FORMAT = 1
MAX_PLAN_BYTES = 4 << 20
KEY = "install"
"""The member of `appliance plan --json` that holds it."""
_SAME = ("format", "name", "version", "manifest", "system", "prefix", "release", "port")
_NO_MORE = ("packages", "units", "effects")


def plan_value(details: PlanDetails) -> dict[str, Any]:
    """A plan as a JSON object."""
    plan, switch = details.plan, details.plan.switch
    return {
        "format": FORMAT,
        "name": plan.bundle.value.contents.name,
        "version": plan.bundle.value.contents.version,
        "manifest": plan.bundle.value.manifest,
        "system": plan.system,
        "prefix": str(plan.prefix.root),
        "release": plan.release.name,
        "serves": _name(plan.before),
        "site": dict(details.site),
        "port": details.port,
        "copies": {"files": plan.files, "bytes": plan.size_bytes},
        "space": [
            {
                "folder": str(room.folder),
                "needed_bytes": room.size_bytes,
                "free_bytes": room.free_bytes,
                "needed_inodes": room.inodes,
                "free_inodes": room.free_inodes,
                "is_enough": room.is_enough,
            }
            for room in details.rooms
        ],
        "packages": list(plan.packages),
        "units": list(plan.units),
        "effects": [{"kind": one.kind, "name": one.name, "until": one.until} for one in details.effects],
        "ansible": None
        if details.ansible is None
        else {
            "problem": details.ansible.problem,
            "changes": [asdict(change) for change in details.ansible.changes],
        },
        "variant": {"name": details.variant, "how": details.variant_how},
        "switch": None
        if switch is None
        else {
            "way": switch.way,
            "memory_now": switch.now,
            "memory_during": switch.during,
            "memory_after": switch.after,
            "memory_budget": switch.budget,
            "downtime_seconds": details.downtime_s,
        },
        "seconds": total_seconds(details.times),
        "times": [{"step": one.step, "seconds": one.seconds, "how": one.how} for one in details.times],
        "final": list(details.final),
        "problems": [one.text for one in details.findings if one.is_problem],
    }


def check_plan(data: bytes, details: PlanDetails) -> None:
    """Refuse an install that is not the one that was planned.

    Args:
        data: of the file that `appliance plan --json` wrote; untrusted, and it can only refuse.
        details: of the install that would be done.

    Raises:
        UsageError: the bytes are no plan of an install.
        HostUnfitError: code `plan.changed`; every difference is in it.
    """
    planned, here = read_plan(data), plan_value(details)
    errors = [_changed(*one) for one in _differences(planned, here)]
    if errors:
        errors[0].others = tuple(errors[1:])
        raise errors[0]


def check_planned(host: Host, plan: InstallPlan, preflight: PreflightResult, media: MediaSet) -> None:
    """Refuse an install that is not the one in the plan that the operator handed in; without one it returns.

    Args:
        host: with the bytes of that plan.
        plan, preflight: of the install that would be done.
        media: untrusted; the declarations of the roles are read from it.

    Raises:
        ApplianceError: as `check_plan` and `detail`.
    """
    if host.plan is None:
        return
    held = held_chunks(host.prefix) if media.missing(plan.bundle.value) else {}
    with tempfile.TemporaryDirectory(prefix="appliance-plan-") as scratch:
        site, entries = read_site(host.prefix.site_file), read_journal(host.prefix)
        check_plan(host.plan, detail(plan, preflight, site, entries, HeldSource(media, held), Path(scratch)))


def read_plan(data: bytes) -> dict[str, Any]:
    """Read the file of a plan.

    Raises:
        UsageError: the bytes are no plan of an install, or one of another format.
    """
    try:
        value = load(data, "plan", MAX_PLAN_BYTES)
    except NotTrustedError as error:
        raise _refused(error.found) from None
    plan = value.get(KEY) if isinstance(value, dict) else None
    if not isinstance(plan, dict) or plan.get("format") != FORMAT:
        raise _refused("no plan of an install" if not isinstance(plan, dict) else f"format {plan.get('format')!r:.40}")
    return plan


def _differences(planned: dict[str, Any], here: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name in _SAME:
        if planned.get(name) != here[name]:
            yield name, _text(planned.get(name)), _text(here[name])
    site = planned.get("site")
    for name, value in here["site"].items():
        known = site.get(name) if isinstance(site, dict) else None
        if known != value:
            yield f"site {name}", _text(known), value
    # A run under this plan may have been interrupted after its switch.
    if here["serves"] not in (planned.get("serves"), planned.get("release")):
        yield "serves", _text(planned.get("serves")), _text(here["serves"])
    for name in _NO_MORE:
        known = planned.get(name)
        more = [one for one in here[name] if not isinstance(known, list) or one not in known]
        if more:
            yield name, "none that the plan does not name", ", ".join(_text(one) for one in more)
    had_room = {_folder(one): one.get("is_enough") for one in planned.get("space", ()) if isinstance(one, dict)}
    for room in here["space"]:
        if not room["is_enough"] and had_room.get(room["folder"], True):
            yield f"space at {room['folder']}", f"{room['needed_bytes']} bytes free", f"{room['free_bytes']} bytes"
    if _wait(here) > _wait(planned):
        yield "downtime_seconds", str(_wait(planned)), str(_wait(here))


def _wait(plan: dict[str, Any]) -> int:
    switch = plan.get("switch")
    found = switch.get("downtime_seconds") if isinstance(switch, dict) else 0
    # How long a window is depends on a recorded time; whether there is one is what a person has agreed to.
    return 1 if isinstance(found, int) and found > 0 else 0


def _folder(room: dict[str, Any]) -> str:
    return str(room.get("folder"))


def _name(target: str | None) -> str | None:
    return target and target.rpartition("/")[2]


def _text(value: object) -> str:
    if isinstance(value, dict):
        return f"{value.get('kind')} {value.get('name')}"
    return "none" if value is None else str(value)


def _changed(name: str, planned: str, found: str) -> HostUnfitError:
    return HostUnfitError(
        "plan.changed",
        f"plan, {name}",
        expected=planned,
        found=found,
        hint="plan again, and decide anew: appliance plan SOURCE --json >plan.json",
    )


def _refused(found: str) -> UsageError:
    return UsageError(
        "plan.refused",
        "plan",
        expected=f"a plan of format {FORMAT}",
        found=found,
        hint="write it again: appliance plan SOURCE --json >plan.json",
    )
