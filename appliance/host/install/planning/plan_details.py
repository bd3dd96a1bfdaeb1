"""Everything that an install would change, in detail: `appliance plan` on a host.

Owns the collection of it. Nothing is changed: what the roles declare is read from the media by signed digest, into a
folder for temporary files.

Rules:
- what an installed release does not show yet comes from what the bundle's roles declare;
- where a release is installed, its Ansible also names what would differ, from a verified copy that is then removed;
- of a machine that is not this one, only its card is known: nothing is installed there, and no time is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from datetime import datetime
from pathlib import Path

from appliance import clock
from appliance.host.change.journal import Journal, JournalEntry
from appliance.host.install.planning.install_plan import InstallPlan
from appliance.host.install.planning.plan_times import StepForecast, downtime_seconds, forecast
from appliance.host.layout.places import OK_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.models.switch_memory import WINDOW
from appliance.host.playbook.ansible_run import variables
from appliance.host.playbook.effects import Effect, declared_effects
from appliance.host.playbook.prediction import Prediction, predict_changes
from appliance.host.preflight.finding import HostFinding
from appliance.host.preflight.host_check import PreflightResult
from appliance.host.preflight.room_findings import RoomNeed
from appliance.host.release.release import open_current
from appliance.host.release.release_check import check_release
from appliance.host.release.release_json import read_facts
from appliance.host.site.config import SiteConfig
from bundles.chunks.copy import copy_files
from bundles.chunks.source import ChunkSource
from bundles.chunks.work_file import CopyJob
from bundles.contents.contents import Contents
from signing.errors import ApplianceError

_ROLES = "playbooks/roles/"
_EFFECTS = "/meta/effects.yml"


@dataclass(frozen=True, slots=True)
class PlanDetails:
    """An install in detail.

    Args:
        plan: the same in short.
        rooms: what it takes of each file system.
        effects: files, folders, users, groups and units that the roles make or write.
        port: address and port of the gateway.
        variant: the CPU variant that will serve, or the first that will be tried.
        variant_how: how it is known: `chosen here` by an earlier trial, or `first to be tried`.
        times: of each step.
        downtime_s: how long users wait in the switch; 0 where both releases serve side by side, or none serves yet.
        final: what cannot be undone, one line each.
        site: what the site has decided: each field as text.
        findings: of preflight.
        ansible: what Ansible's check mode predicts; None where no release is installed that could run it.
    """

    plan: InstallPlan
    rooms: tuple[RoomNeed, ...]
    effects: tuple[Effect, ...]
    port: str
    variant: str
    variant_how: str
    times: tuple[StepForecast, ...]
    downtime_s: int
    final: tuple[str, ...]
    site: Mapping[str, str]
    findings: tuple[HostFinding, ...]
    ansible: Prediction | None = None


def detail(
    plan: InstallPlan,
    preflight: PreflightResult,
    site: SiteConfig,
    entries: Sequence[JournalEntry],
    source: ChunkSource,
    scratch: Path,
) -> PlanDetails:
    """Collect the details of a plan.

    Args:
        plan, preflight: of the same bundle on the same host.
        site: its configuration.
        entries: of its journal, oldest first.
        source: the media, untrusted.
        scratch: a private folder; files of the roles are read there.

    Raises:
        DamagedError, NotTrustedError: a declaration is not what was signed, or breaks its format.
    """
    bundle = plan.bundle.value
    files = _read_declarations(bundle.contents, source, scratch)
    effects = declared_effects(files, variables(plan.prefix, plan.release, bundle, site))
    is_complete = (plan.release / OK_FILE).is_file()
    sizes = sum(bundle.contents.by_path[model.path].size for model in bundle.contents.models)
    times = forecast(entries, plan.size_bytes, sizes, is_complete=is_complete)
    is_window = plan.switch is not None and plan.switch.way == WINDOW
    variant, how = _variant(plan, preflight)
    return PlanDetails(
        plan,
        preflight.rooms,
        effects,
        f"{site.bind}:{site.port}",
        variant,
        how,
        times,
        downtime_seconds(times) if is_window else 0,
        tuple(_final(plan)),
        _decisions(site),
        preflight.findings,
    )


def with_prediction(details: PlanDetails, site: SiteConfig, source: ChunkSource, now: datetime) -> PlanDetails:
    """Add what Ansible would change, where a release is installed whose environment can run it.

    The environment runs only after every byte of it was compared: a plan may be the first look at a strange host.

    Args:
        details: of a plan.
        site: the configuration of the site.
        source: the media, untrusted.
        now: the clock, in UTC; see `signing.verify`.

    Raises:
        DamagedError, NotTrustedError: a file of the playbooks is not what was signed.
    """
    plan = details.plan
    python = plan.prefix.opt / (plan.before or "") / "venv" / "bin" / "python"
    if plan.before is None or not python.exists():
        return details
    try:
        check_release(open_current(plan.prefix, now), models=False)
    except ApplianceError as error:
        text = (
            f"the installed release is not as it was installed ({error.subject}: {error.code}); see `appliance status`"
        )
        return replace(details, ansible=Prediction((), text))
    return replace(details, ansible=predict_changes(plan.prefix, plan.release, plan.bundle.value, site, source, python))


def _read_declarations(contents: Contents, source: ChunkSource, scratch: Path) -> dict[str, bytes]:
    files = [
        file for file in contents.of_kind("playbook") if file.path.startswith(_ROLES) and file.path.endswith(_EFFECTS)
    ]
    jobs = [CopyJob(file, scratch / f"effects-{number}") for number, file in enumerate(files)]
    copy_files(jobs, source, {})
    return {
        file.path.removeprefix("playbooks/"): job.destination.read_bytes()
        for file, job in zip(files, jobs, strict=True)
    }


def _variant(plan: InstallPlan, preflight: PreflightResult) -> tuple[str, str]:
    for release in (plan.release, *([plan.prefix.opt / plan.before] if plan.before else [])):
        with suppress(ApplianceError):
            variant = read_facts(release).cpu_variant
            if variant in preflight.variants:
                return variant, "chosen here"
    return (preflight.variants[0] if preflight.variants else ""), "first to be tried"


def _decisions(site: SiteConfig) -> dict[str, str]:
    # An install writes the file with its defaults where there is none: other bytes, the same decisions.
    own = {one.name for one in fields(SiteConfig)} - {"digest", "data"}
    found: dict[str, str] = {}
    for name in sorted(own):
        value = getattr(site, name)
        inner = asdict(value) if is_dataclass(value) and not isinstance(value, type) else {}
        found |= {f"{name}.{part}": str(one) for part, one in inner.items()}
        if not inner:
            found[name] = "" if value is None else str(value)
    return found


def _final(plan: InstallPlan) -> Iterator[str]:
    time = plan.bundle.evidence.floors.time
    yield f"the floors rise to {time}: nothing that was signed before is accepted again"
    if plan.packages:
        yield "OS packages stay, whatever is removed later"
    if plan.before is None:
        yield "the trust root stays pinned, until an uninstall with --purge"


def read_journal(prefix: Prefix) -> list[JournalEntry]:
    """The journal of installs on this host; empty where there is none, or this user may not read it."""
    try:
        return Journal(prefix.journal / "install.jsonl", clock.utc_now).read()
    except OSError:
        return []
