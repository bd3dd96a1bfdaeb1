"""`appliance switch`: make a staged release serve, without its stick.

Owns the choice of the release and its verification; the steps are those of an install from the switch on.

Rules (threats T2, T32, T119):
- the chain of trust and every byte of the release are verified again: days may lie between staging and switching;
- only a release that was staged, or whose switch was cut off, can be switched to: everything else was never tried;
- the site's file must be the one that the release was configured from.
"""

from __future__ import annotations

from pathlib import Path

from appliance.host.change.change_file import INSTALL, SWITCHING, read_change
from appliance.host.change.step_runner import OnBoundary, ignore_boundary
from appliance.host.install.install import run_to_the_end
from appliance.host.install.install_run import InstallRun
from appliance.host.install.planning.install_plan import InstallResult
from appliance.host.install.steps import SWITCH_STEPS
from appliance.host.layout.install_lock import hold
from appliance.host.layout.places import OK_FILE, STAGED_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.preflight.inputs import Host
from appliance.host.process.programs import Programs
from appliance.host.release.environment import Interpreter
from appliance.host.release.release import Release, current_target, open_release
from appliance.host.release.release_check import check_release
from appliance.host.release.state_format import check_state_format
from appliance.host.runtime.variant_choice import Choice
from appliance.host.site.config import read_site
from appliance.host.trust.root_choice import none_pinned
from appliance.host.trust.trust_store import read_root
from bundles.progress import OnProgress, ignore
from signing.errors import DriftError, HostUnfitError, UsageError


def switch_release(
    name: str | None, host: Host, on_progress: OnProgress = ignore, on_boundary: OnBoundary = ignore_boundary
) -> InstallResult:
    """Switch to a staged release.

    Args:
        name: of the release's folder; None where only one is staged.
        host: the machine, and the choices of its operator.
        on_progress: called with what is done.
        on_boundary: called before and after each step; a test ends the process there.

    Returns:
        What was done; the release serves.

    Raises:
        UsageError: no release, or several, can be switched to, or another one was named; nothing was changed.
        NotTrustedError, DamagedError: it is not what was signed; nothing was changed.
        DriftError: it, or the site's file, was changed since it was staged; nothing was changed.
        HostUnfitError: this user may not change the machine, or the release does not read the stored state.
        ApplyRestoredError: a step failed; the release that served before serves.
        ApplyBrokenError: a step failed, and the release that served before could not be restored.
        BusyError: another change runs on this host.
    """
    prefix = host.prefix
    if prefix.is_system and not host.is_root:
        raise HostUnfitError("switch.user", "user", expected="root", found="another user", hint="run it with sudo")
    _choose(prefix, name)  # before folders are made: nothing may be installed
    with hold(prefix) as lock:
        path = _choose(prefix, name)
        release = open_release(prefix, path, host.now(), is_on_trial=True)
        check_staged(release, on_progress)
        root = read_root(prefix)
        if root is None:
            raise none_pinned(prefix)
        run = InstallRun(host, Programs(prefix.scratch, lock), release.bundle, root, on_progress)
        run.facts, run.was_complete, run.is_same = release.facts, True, True
        run.choice = Choice(release.facts.cpu_variant, 0, release.facts.tokens_per_s)
        run.python = Interpreter(Path(release.facts.python), release.facts.python_version)
        return run_to_the_end(run, SWITCH_STEPS, on_boundary)


def check_staged(release: Release, on_progress: OnProgress = ignore) -> None:
    """Verify a release that was staged earlier: every byte, the stored state that it reads, and the site's file.

    Raises:
        NotTrustedError, DamagedError, DriftError, HostUnfitError: as `switch_release`.
    """
    check_release(release, on_progress)
    check_state_format(release.prefix, release.contents)
    _check_site(release)


def staged_releases(prefix: Prefix) -> tuple[str, ...]:
    """The folders' names of the releases that wait for a switch."""
    cut_off, serving = _cut_off(prefix), _serving(prefix)
    return tuple(
        sorted(
            path.name
            for path in (prefix.releases.iterdir() if prefix.releases.is_dir() else ())
            if ((path / STAGED_FILE).is_file() and path.name != serving)
            or (path.name == cut_off and (path / OK_FILE).is_file())
        )
    )


def _serving(prefix: Prefix) -> str:
    return (current_target(prefix) or "").rpartition("/")[2]


def _cut_off(prefix: Prefix) -> str:
    change = read_change(prefix)
    is_cut = change is not None and (change.op, change.phase) == (INSTALL, SWITCHING)
    return change.release if change is not None and is_cut and change.release != change.before else ""


def _choose(prefix: Prefix, name: str | None) -> Path:
    staged = staged_releases(prefix)
    if name is None and len(staged) == 1:
        return prefix.releases / staged[0]
    if name in staged:
        return prefix.releases / name
    serving = _serving(prefix)
    if staged:
        expected, hint = f"one of {', '.join(staged)}", f"appliance switch {staged[0]}{prefix.option}"
    else:
        expected = "a release that is staged"
        hint = f"appliance install SOURCE --stage{prefix.option}; to go back: appliance rollback{prefix.option}"
    found = "several" if staged and name is None else "the one that serves" if name == serving else "none such"
    raise UsageError("switch.not-staged", name or str(prefix.root), expected=expected, found=found, hint=hint)


def _check_site(release: Release) -> None:
    prefix = release.prefix
    if read_site(prefix.site_file).digest != release.facts.site:
        raise DriftError(
            "switch.site-changed",
            str(prefix.site_file),
            expected=f"sha256 {release.facts.site}, from which {release.path.name} was configured",
            found="another file",
            hint=f"stage it again from its stick: appliance install SOURCE --stage{prefix.option}",
        )
