"""Gathering what a file for support may state about this host, also where the host is broken.

Owns the reading of each section; `grammar` decides which of it may leave. It changes nothing.

Rules:
- a section that cannot be read becomes a problem with its code; the others are still gathered;
- errors give their codes alone: subjects and messages hold paths and names;
- models are not compared byte by byte here: `appliance status` does that, and takes minutes for large ones.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from appliance.host.activation.service_check import read_services, service_problems
from appliance.host.change.journal import FAILED
from appliance.host.engine.state import EngineState
from appliance.host.layout.prefix import Prefix
from appliance.host.layout.unit_files import ENGINE
from appliance.host.machine.card import Card
from appliance.host.machine.proc_file import read_text
from appliance.host.maintenance.egress import read_egress
from appliance.host.maintenance.host_life import read_journal, read_life
from appliance.host.maintenance.site_state import site_drift
from appliance.host.maintenance.status import floor_problems
from appliance.host.process.systemctl import UnitState
from appliance.host.release.release import Release, current_target, open_current
from appliance.host.release.release_check import check_release
from appliance.host.site.api_keys import AccessStore
from appliance.host.site.config import read_site
from appliance.host.trust.expiry_exemption import describe_recorded
from appliance.host.trust.receipt_counter import read_counter
from appliance.host.trust.trust_store import read_floors
from signing.errors import ApplianceError

FORMAT = 1
_JOURNAL_LINES = 80
_KERNEL = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass
class _Gathering:
    """The facts so far, and the problems of the sections that could not be read, or that found some."""

    value: dict[str, Any]
    problems: list[dict[str, object]]

    def add(self, section: str, read: Callable[[], dict[str, Any]]) -> None:
        """Add what a section reads; an error of it becomes a problem."""
        try:
            self.value |= read()
        except ApplianceError as error:
            self.note(section, (error, *error.others))
        except OSError as error:
            code = errno.errorcode.get(error.errno or 0, "unknown").lower()
            self.problems.append({"section": section, "code": f"system.{code}", "exit_code": 1})

    def note(self, section: str, errors: Iterable[ApplianceError]) -> None:
        """Add errors as problems."""
        self.problems += [{"section": section, "code": error.code, "exit_code": error.exit_code} for error in errors]


def gather_support(
    prefix: Prefix, card: Card, now: datetime, engines: Callable[[Release, tuple[UnitState, ...]], list[EngineState]]
) -> dict[str, Any]:
    """Gather everything that a file for support could state.

    Args:
        prefix: the host; nothing need be installed.
        card: of the machine.
        now: the clock, in UTC.
        engines: reads the states of a release's engines.

    Returns:
        Nested mappings and lists, for `grammar.admit`. Nothing of it may leave before that.
    """
    found = _Gathering({"format": FORMAT, "time": now.strftime("%Y-%m-%dT%H:%M:%SZ")}, [])
    found.value |= {"program": _program(prefix), "machine": _machine(card), "disks": _disks(prefix)}
    found.add("floors", lambda: {"floors": {name: one or None for name, one in asdict(read_floors(prefix)).items()}})
    found.add("floors", lambda: {"receipts": {"counter": read_counter(prefix).counter}})
    found.add("life", lambda: _life(prefix, found))
    found.add("release", lambda: _release(prefix, now, engines, found))
    found.add("keys", lambda: {"keys": {"count": _key_count(prefix)}})
    found.value["journal"] = _journal(prefix)
    found.value["problems"] = found.problems
    return found.value


def _program(prefix: Prefix) -> dict[str, Any]:
    try:
        own = version("airgap-appliance")
    except PackageNotFoundError:
        own = None
    root = os.geteuid() == 0
    return {"version": own, "python": python_version(), "is_system": prefix.is_system, "is_root": root}


def _machine(card: Card) -> dict[str, Any]:
    system, cpu, memory = card.system, card.cpu, card.memory
    kernel = _KERNEL.match(system.kernel)
    return {
        "os": system.os,
        "arch": system.arch,
        "kernel": kernel.group() if kernel else None,
        "systemd": (_KERNEL.match(system.systemd) or [None])[0],
        "glibc": system.glibc,
        "cores": cpu.cores,
        "allowed_cores": cpu.allowed_cores,
        "quota_millicores": cpu.quota_millicores,
        "engine_threads": cpu.engine_threads,
        "variants": [variant.name for variant in cpu.variants if variant.is_fit],
        "ram_bytes": memory.ram_bytes,
        "available_bytes": memory.available_bytes,
        "swap_bytes": memory.swap_bytes,
        "limit_bytes": memory.limit_bytes,
        "graphics_processors": len(card.gpus),
        "isolation": card.kernel.isolation,
        "cgroup_version": card.kernel.cgroup_version,
        "clock_is_synchronised": card.clock.is_synchronised,
    }


def _disks(prefix: Prefix) -> list[dict[str, Any]]:
    mounts = [line.split() for line in read_text(Path("/proc/self/mounts")).splitlines()]
    kinds = {parts[1]: parts[2] for parts in mounts if len(parts) > 2}
    found = []
    for holds, path in (("releases", prefix.opt), ("state", prefix.state), ("temporary files", Path("/tmp"))):
        folder = next((one for one in (path, *path.parents) if one.is_dir()), Path("/"))
        mount = next((str(one) for one in (folder, *folder.parents) if str(one) in kinds), "/")
        try:
            room = os.statvfs(folder)
        except OSError:
            continue
        found.append(
            {
                "holds": holds,
                "filesystem": kinds.get(mount),
                "size_bytes": room.f_blocks * room.f_frsize,
                "free_bytes": room.f_bavail * room.f_frsize,
                "free_inodes": room.f_favail,
                "is_read_only": bool(room.f_flag & os.ST_RDONLY),
            }
        )
    return found


def _life(prefix: Prefix, found: _Gathering) -> dict[str, Any]:
    life = read_life(prefix)
    found.note("life", life.problems)
    releases = sum(1 for path in prefix.releases.iterdir()) if prefix.releases.is_dir() else 0
    value: dict[str, Any] = {"state": life.state, "has_previous": bool(life.previous)}
    if life.change is not None:
        change = life.change
        value |= {"op": change.op, "phase": change.phase, "since": change.since, "boots": change.boots}
        value["note"] = change.note or None
    return {"life": value, "releases": releases}


def _release(
    prefix: Prefix,
    now: datetime,
    engines: Callable[[Release, tuple[UnitState, ...]], list[EngineState]],
    found: _Gathering,
) -> dict[str, Any]:
    release = open_current(prefix, now)
    found.add("release", lambda: _compared(release))
    services = read_services(release)
    found.note("services", service_problems(release, services))
    found.note("floors", floor_problems(prefix, read_floors(prefix), release.bundle.evidence.floors))
    found.add("site", lambda: _site(release, found))
    egress, problems = read_egress(release)
    found.note("services", problems)
    evidence, facts, contents = release.bundle.evidence, release.facts, release.contents
    return {
        "release": {
            "version": contents.version,
            "manifest": release.bundle.value.manifest,
            "target_status": evidence.status,
            "cpu_variant": facts.cpu_variant,
            "tokens_per_s": facts.tokens_per_s,
            "isolation": facts.isolation,
            "python": facts.python_version,
            "is_development": evidence.is_development,
            "is_overridden": describe_recorded(prefix, release.bundle) is not None,
            "proved_time": evidence.floors.time,
            "expires": evidence.expires[0],
            "signers": len(evidence.signers),
            "threshold": evidence.threshold,
            "models_were_compared": False,
        },
        "models": [
            {
                "quantisation": model.quantisation,
                "size_bytes": release.model_file(model)[0].size,
                "context": model.context,
                "is_embedding": bool(model.embedding),
            }
            for model in contents.models
        ],
        "engines": [
            {"status": one.status, "reason": one.reason, "level": one.level, "isolation": one.isolation}
            for one in engines(release, services)
        ],
        "services": [_service(unit) for unit in services],
        "egress": None if egress is None else {"services": egress.services, "others": egress.others},
    }


def _compared(release: Release) -> dict[str, Any]:
    check_release(release, models=False)
    return {}


def _service(unit: UnitState) -> dict[str, Any]:
    name, _, kind = unit.name.removeprefix("appliance-").rpartition(".")
    return {
        "kind": "engine" if unit.name.startswith(f"{ENGINE}@") else "socket" if kind == "socket" else name,
        "active": unit.active,
        "enabled": unit.enabled,
        "exit_code": unit.exit_code,
        "drop_ins": len(unit.drop_ins),
    }


def _site(release: Release, found: _Gathering) -> dict[str, Any]:
    site = read_site(release.prefix.site_file)
    drift = site_drift(release, site)
    found.note("site", drift)
    value = {"is_applied": not drift, "is_loopback_default": site.bind == "127.0.0.1", "port": site.port}
    more = {"slots": site.slots, "context": site.context, "has_name": bool(site.site), "keep": site.keep}
    return {"site": {**value, **more}}


def _key_count(prefix: Prefix) -> int | None:
    # SQLite reports a file that this user may not read like a damaged one.
    if prefix.access.exists():
        prefix.access.open("rb").close()
    return len(AccessStore(prefix.access, is_read_only=True).list()) if prefix.access.exists() else None


def _journal(prefix: Prefix) -> list[dict[str, Any]]:
    try:
        current = (current_target(prefix) or "").rpartition("/")[2]
    except ApplianceError:
        current = ""  # something else than a link lies there: the section of the release has its code
    return [
        {
            "time": entry.time,
            "step": entry.step,
            "state": entry.state,
            "is_current": entry.release == current,
            "code": entry.note if entry.state == FAILED else None,
        }
        for entry in read_journal(prefix)[-_JOURNAL_LINES:]
    ]
