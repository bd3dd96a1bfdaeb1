"""`appliance install`: from an untrusted medium to a release that serves (docs/architecture.md, The host).

Owns what happens around the steps: the verification before anything is written, the lock, and the result. The steps are
data, in `appliance.host.install.steps`.

Rules:
- the chain of trust is verified before anything is written, floors and metadata before any content (threats T1, T2);
- the old release serves until the one rename of `current`, and again if the gate after it fails (threat T35);
- one install runs at a time, and its children inherit the lock (threat T36).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from appliance.host.change.change_file import ROLLBACK, SWITCHING, is_cut_off, read_change
from appliance.host.change.journal import JournalEntry
from appliance.host.change.step_runner import ChangeStep, OnBoundary, StepRecord, StepRunner, ignore_boundary
from appliance.host.install.bundle_admission import (
    admit,
    exemption_notices,
    expiry_exemption,
    release_path,
    run_preflight,
    verify_media,
)
from appliance.host.install.bundle_parts import check_parts
from appliance.host.install.importer import accept
from appliance.host.install.install_run import STAGED, InstallRun
from appliance.host.install.planning.install_plan import Dialogue, InstallResult, Silent, plan_install
from appliance.host.install.planning.plan_file import check_planned
from appliance.host.install.steps import UNTIL_STAGED, WHOLE_INSTALL
from appliance.host.layout.install_lock import hold
from appliance.host.layout.prefix import Prefix
from appliance.host.preflight.inputs import Host, SourceMedia
from appliance.host.preflight.older import check_older
from appliance.host.process.programs import Programs
from appliance.host.release.release import current_target, open_current
from appliance.host.release.release_check import check_release
from appliance.host.runtime.variant_choice import Choice
from appliance.host.site.config import read_site
from appliance.host.site.site_check import check_models, check_site
from appliance.host.trust.metadata_store import notices, trust_state
from appliance.host.trust.trust_store import read_root
from appliance.keys.signers.host_key import make_host_key
from bundles.bundle import Bundle
from bundles.contents.contents import Contents
from bundles.progress import OnProgress, ignore
from signing.errors import ApplianceError, UsageError
from signing.verified import Verified

_SILENT = Silent()


def install(
    source: Path | SourceMedia,
    trust: bytes,
    host: Host,
    on_progress: OnProgress = ignore,
    dialogue: Dialogue = _SILENT,
    *,
    is_staging: bool = False,
    on_boundary: OnBoundary = ignore_boundary,
) -> InstallResult:
    """Install a bundle, or finish or repair an install of it.

    Args:
        source: untrusted; a bundle, or a stick that holds all of it; or several media.
        trust: bytes of the root to verify against; pinned on this host where it has none.
        host: the machine, and the choices of its operator.
        on_progress: called with what is done.
        dialogue: receives what was verified and what is planned, before anything is written.
        is_staging: whether to stop before the switch: the release is complete and tried, and waits.
        on_boundary: called before and after each step; a test ends the process there.

    Returns:
        What was done; the release serves, or waits for the switch.

    Raises:
        UsageError: the site's file is wrong; or it is to be staged, and serves already; nothing that serves changed.
        NotTrustedError: the chain of trust does not cover it, or an override does not hold; nothing was written.
        HostUnfitError: the machine cannot take it; with every reason; nothing was written.
        DamagedError: blobs differ; what was copied is kept for the next run.
        ApplyRestoredError: a step failed; the release that served before serves.
        ApplyBrokenError: a step failed, and the release that served before could not be restored.
        BusyError: another install runs on this host.
    """
    prefix, known = host.prefix, trust_state(host.prefix)
    admitted = verify_media(source, trust, host)
    found = admitted.found
    _check_direction(found, host)
    dialogue.on_verified(found, admitted.media.source)
    check_parts(found.value.contents)
    _check_site_file(host, found.value.contents)
    preflight = run_preflight(admitted, host)
    plan = plan_install(host, release_path(prefix, found.value), found, preflight)
    check_planned(host, plan, preflight, admitted.media.source)
    dialogue.on_planned(plan)
    prefix.create()
    with hold(prefix) as lock:
        if trust_state(prefix) != known:
            # Another install has raised the floors in the meantime.
            admitted = admit(source, trust, host)
            found, preflight = admitted.found, run_preflight(admitted, host)
        _check_direction(found, host)  # the command that held the lock may have switched
        make_host_key(prefix.trust)
        empty(prefix.scratch)
        run = InstallRun(host, Programs(prefix.scratch, lock), found, trust, on_progress, admitted, preflight)
        run.exemption = expiry_exemption(host, found)
        run.warnings += [*preflight.warnings, *notices(found), *admitted.media.notices]
        run.warnings += exemption_notices(host, run.exemption)
        if is_staging and _will_serve(prefix) == run.path.name:
            return _stage_serving(run)
        return run_to_the_end(run, UNTIL_STAGED if is_staging else WHOLE_INSTALL, on_boundary)


def _check_direction(found: Verified[Bundle], host: Host) -> None:
    contents = found.value.contents
    path = release_path(host.prefix, found.value)
    check_older(host.prefix, contents.name, contents.version, path, is_meant=host.may_go_back)


def _check_site_file(host: Host, contents: Contents) -> None:
    """Refuse a wrong site's file; after a switch that was cut off the first step does so, once it has undone that."""
    if not is_cut_off(host.prefix):
        site = read_site(host.prefix.site_file)
        check_site(host.prefix, site, host.now())
        check_models(host.prefix, site, [model.name for model in contents.models])


def _stage_serving(run: InstallRun) -> InstallResult:
    """Stage the release that serves: nothing to do, as long as that and the site's file are right.

    What a stage renders would be the configuration of the release that serves.
    """
    prefix, now = run.host.prefix, run.host.now()
    if is_cut_off(prefix):
        raise _serves(run, "a switch that was cut off", f"to end it: appliance install SOURCE{prefix.option}")
    accept(prefix, run.found, read_root(prefix) or run.trust, run.exemption)
    try:
        release = open_current(prefix, now)
        check_release(release, run.on_progress)
    except ApplianceError as error:
        raise _serves(run, str(error), f"to repair it: appliance install SOURCE{prefix.option}") from None
    if release.facts.site != read_site(prefix.site_file).digest:
        raise _serves(run, f"another {prefix.site_file}", f"appliance config apply{prefix.option}")
    run.release, run.before, run.was_complete, run.end = release, current_target(prefix), True, STAGED
    run.choice = Choice(release.facts.cpu_variant, 0, release.facts.tokens_per_s)
    return _result(run, (), None)


def _serves(run: InstallRun, found: str, hint: str) -> UsageError:
    expected = "the release that serves, as it was installed: it cannot be staged anew"
    return UsageError("stage.serves", run.path.name, expected=expected, found=found, hint=hint)


def _will_serve(prefix: Prefix) -> str:
    """The folder's name of the release that serves once a switch that was cut off is undone or finished."""
    change = read_change(prefix)
    if change is not None and change.phase == SWITCHING:
        return change.release if change.op == ROLLBACK else change.before
    return Path(current_target(prefix) or "").name


def run_to_the_end(run: InstallRun, steps: Sequence[ChangeStep[InstallRun]], on_boundary: OnBoundary) -> InstallResult:
    """Run the steps of a change, and describe what was done.

    Args:
        run: its values; the caller holds the lock.
        steps: in their order.
        on_boundary: called before and after each step.

    Raises:
        ApplianceError: as `install`.
    """
    prefix, name = run.host.prefix, run.path.name
    interrupted = run.journal.interrupted(name)
    run.was_interrupted = interrupted is not None
    runner = StepRunner(steps, run, run.journal, name, prefix.root, run.not_restored, on_boundary)
    try:
        records = runner.run()
    finally:
        if run.trial is not None:
            run.trial.stop()
        empty(prefix.scratch)
    return _result(run, records, interrupted)


def _result(run: InstallRun, records: Sequence[StepRecord], interrupted: JournalEntry | None) -> InstallResult:
    notices_of_media = run.admitted.media.source.notices if run.admitted else ()
    return InstallResult(
        run.release or run.opened(),
        run.was_complete,
        run.played,
        run.choice,
        run.copied,
        run.answer,
        tuple(records),
        (*run.warnings, *notices_of_media),
        interrupted,
        run.end,
        was_current=run.is_current,
    )


def empty(folder: Path) -> None:
    """Remove everything in a folder; links are removed and not followed."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
