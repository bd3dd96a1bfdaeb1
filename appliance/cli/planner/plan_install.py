"""What `appliance plan` adds for a bundle or a stick: all that an install of it would change on a host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from appliance import clock
from appliance.cli.console.columns import labelled
from appliance.cli.console.figures import format_memory
from appliance.cli.planner.host_check import this_host
from appliance.cli.planner.plan_source import PlanSource
from appliance.host.install.bundle_admission import model_workloads, release_path
from appliance.host.install.planning.install_plan import plan_install
from appliance.host.install.planning.plan_details import PlanDetails, detail, read_journal, with_prediction
from appliance.host.install.planning.plan_times import RECORDED, total_seconds
from appliance.host.layout.prefix import Prefix
from appliance.host.machine.card import Card
from appliance.host.models.switch_memory import BESIDE, WINDOW
from appliance.host.playbook.effects import FILE, FOLDER, GROUP, UNIT, USER
from appliance.host.playbook.prediction import Prediction
from appliance.host.preflight.host_check import check_installable, look_at_card, look_at_host
from appliance.host.preflight.inputs import Host
from appliance.host.release.held_chunks import held_chunks
from appliance.host.release.held_source import HeldSource
from appliance.host.site.config import SiteConfig, read_site
from appliance.host.site.site_check import check_models, check_site
from bundles.contents.contents import Contents
from bundles.report import format_size
from signing.errors import ApplianceError

_COLUMN = 13
_NAMES = {FILE: "files", FOLDER: "folders", GROUP: "groups", USER: "users", UNIT: "units"}


def plan_here(source: PlanSource, prefix: Path | None, scratch: Path, *, may_go_back: bool) -> PlanDetails | None:
    """Plan the install of a bundle on this machine.

    Args:
        source: what was named.
        prefix: of the host; None is the whole machine.
        scratch: a private folder.
        may_go_back: whether an older bundle than the release that serves is meant.

    Returns:
        None where no bundle was named, or one that no host can install, such as one of models alone.

    Raises:
        ApplianceError: a file of the host or of the bundle is damaged, or the site's file is wrong.
    """
    if source.bundle is None or source.media is None or not _is_installable(source.bundle.value.contents):
        return None
    host = this_host(Prefix.at(prefix or Path("/")), may_go_back=may_go_back)
    bundle = source.bundle
    contents, release = bundle.value.contents, release_path(host.prefix, bundle.value)
    media = HeldSource(source.media, held_chunks(host.prefix) if source.media.missing(bundle.value) else {})
    models = model_workloads(media, contents, read_site(host.prefix.site_file))
    found = look_at_host(contents, models, host, release, bundle.evidence.floors.time)
    plan = plan_install(host, release, bundle, found)
    site = read_site(host.prefix.site_file)
    check_site(host.prefix, site, host.now())
    check_models(host.prefix, site, [model.name for model in contents.models])
    details = detail(plan, found, site, read_journal(host.prefix), media, scratch)
    return with_prediction(details, site, media, host.now())


def plan_elsewhere(source: PlanSource, card: Card, prefix: Path | None, scratch: Path) -> PlanDetails | None:
    """Plan the install of a bundle on another machine, of which only the card is here; see `plan_here`."""
    if source.bundle is None or source.media is None or not _is_installable(source.bundle.value.contents):
        return None
    bundle, place = source.bundle, Prefix.at(prefix or Path("/"))
    media = HeldSource(source.media, {})
    found = look_at_card(bundle.value.contents, model_workloads(media, bundle.value.contents), card, place)
    host = Host(place, card, clock.utc_now, os.defpath)
    plan = plan_install(host, release_path(place, bundle.value), bundle, found, is_here=False)
    return detail(plan, found, SiteConfig(), (), media, scratch)


def _is_installable(contents: Contents) -> bool:
    try:
        check_installable(contents)
    except ApplianceError:
        return False
    return True


def install_lines(details: PlanDetails) -> list[str]:
    """The plan of an install as lines for people."""
    return [line for label, text in _parts(details) for line in labelled(label, text, _COLUMN)]


def _parts(details: PlanDetails) -> Iterator[tuple[str, str | list[str]]]:
    plan = details.plan
    total = len(plan.bundle.value.contents.files)
    yield "installs", f"{plan.bundle.value.label} as {plan.release}"
    yield (
        "copies",
        f"{plan.files} of {total} files, at most {format_size(plan.size_bytes)}" if plan.files else "nothing",
    )
    for number, room in enumerate(details.rooms):
        text = f"{room.folder}: {format_size(room.size_bytes)} of {format_size(room.free_bytes)} that are free"
        yield "space" if number == 0 else "", text
    yield "packages", ", ".join(plan.packages) or "none"
    for kind, label in _NAMES.items():
        names = [one.name for one in details.effects if one.kind == kind]
        if kind == UNIT and not names:
            names = list(plan.units)  # a bundle of an older version declares nothing
        if names:
            yield label, names
    if details.ansible is not None:
        yield "Ansible", _predicted(details.ansible)
    yield "port", details.port
    yield from _memory(details)
    yield "variant", f"{details.variant or 'none fits'}, {details.variant_how}"
    recorded = sum(one.how == RECORDED for one in details.times)
    how = f"{recorded} of {len(details.times)} steps as this host recorded them, the others by fixed rates"
    yield "time", f"about {total_seconds(details.times)} s: {how}"
    yield "for good", list(details.final)
    problems = [one.text for one in details.findings if one.is_problem]
    if problems:
        yield "prevented by", problems


def _predicted(prediction: Prediction) -> str | list[str]:
    if prediction.problem:
        return f"no prediction: {prediction.problem[:200]}"
    changes = prediction.changes
    return [f"{'makes' if one.is_new else 'changes'} {one.kind} {one.name}" for one in changes] or "changes nothing"


def _memory(details: PlanDetails) -> Iterator[tuple[str, str]]:
    switch = details.plan.switch
    if switch is None:
        return
    before = details.plan.before
    if before is not None and before.rpartition("/")[2] == details.plan.release.name:
        yield "switch", "none: this release serves already, and is repaired where it differs"
        return
    now, during, after = (format_memory(size) for size in (switch.now, switch.during, switch.after))
    yield "memory", f"models take {now} now, {during} during the switch and {after} after it"
    if switch.way == WINDOW:
        yield "switch", f"in a window of about {details.downtime_s} s: users get 503 with Retry-After until it ends"
    elif switch.way == BESIDE:
        yield "switch", "beside the release that serves: users wait for nothing"
    else:
        yield "switch", "none: nothing serves yet"
