"""The steps of an install as data, in order: what each does, what it changes, and how it is undone.

Owns the steps and their order. Each step compares what is on the disk with what should be there, so it does not matter
where the last run stopped. What is right is left alone; what is missing or damaged is made again.

Rules (threat T35):
- the record of the change is written before the rename of `current`, and decides what an interruption leaves;
- what a return needs lies on the disk before the switch: the link `previous`, units and configuration of that release;
- the old release serves until the one rename, and again if the gate after it fails;
- after the commit has begun, nothing goes back by itself.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from appliance.host.activation.switch import complete, point_at, target_of
from appliance.host.change.change_file import (
    COMMITTING,
    INSTALL,
    SWITCHING,
    TRYING,
    HostChange,
    clear_change,
    read_change,
    utc_text,
    write_change,
)
from appliance.host.change.recovery import undo_switch
from appliance.host.change.rollback_program import install_rollback_program
from appliance.host.change.step_runner import ChangeStep, StepRecord
from appliance.host.change.way_back import (
    keep_reserve,
    point_previous,
    previous_target,
    remove_configuration,
    restore_configuration,
    save_configuration,
)
from appliance.host.install.commit import make_good
from appliance.host.install.importer import accept, import_files, import_layout
from appliance.host.install.install_run import STAGED, TRYING_NOW, InstallRun, gate_failed
from appliance.host.install.os_packages import install_packages, wanted_packages
from appliance.host.install.policy_rc import POLICY
from appliance.host.install.sealing import forget_stopped_models, seal_models, seal_runtime, seal_warnings
from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.places import FACTS_FILE, OK_FILE, SITE_FILE, STAGED_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.playbook.ansible_run import render
from appliance.host.release.bootstrap import extract_uv, make_venv
from appliance.host.release.environment import Interpreter, build_environment
from appliance.host.release.environment_check import check_environment
from appliance.host.release.release import current_target, open_current, open_release
from appliance.host.release.release_check import check_release
from appliance.host.release.release_json import read_facts, write_facts
from appliance.host.runtime.extraction import begin_trial, prepare_runtime
from appliance.host.runtime.variant_choice import Choice
from appliance.host.site.config import read_site
from appliance.host.site.site_check import check_models, check_site
from appliance.host.trust.trust_store import read_root
from bundles.durability import sync_file_system
from bundles.medium import sync_folder
from bundles.progress import ignore
from signing.errors import ApplianceError


def _settle(run: InstallRun, record: StepRecord) -> None:
    """Find out where the host stands; an unfinished change is undone, or given up for this one."""
    prefix = run.host.prefix
    undone = undo_switch(prefix)
    if undone is not None:
        run.warnings.append(f"{undone.op} of {undone.release} had been cut off during the switch, and was undone")
        _restart_services(run, undone)
    run.change = read_change(prefix)
    if run.change is not None and run.change.op != INSTALL:
        # A newer command supersedes an unfinished one: a boot must not go on with that.
        clear_change(prefix)
        run.warnings.append(f"an unfinished {run.change.op} is given up: this install supersedes it")
        run.change = None
    run.site = read_site(prefix.site_file)
    check_site(prefix, run.site, run.host.now())
    check_models(prefix, run.site, [model.name for model in run.found.value.contents.models])
    run.before, run.previous = current_target(prefix), previous_target(prefix)
    record.note = f"{run.before.rpartition('/')[2]} serves" if run.before else "nothing serves"


def _plan(run: InstallRun, record: StepRecord) -> None:
    forget_stopped_models(run.host.prefix, run.path, run.found.value.contents)
    run.was_complete = _is_complete(run)
    record.note = "complete already" if run.was_complete else "to be installed"


def _restart_services(run: InstallRun, undone: HostChange) -> None:
    """Start the services of the release that `current` names again; this run goes on where they do not start."""
    releases = run.host.prefix.releases
    try:
        run.services.restore(releases / undone.before if undone.before else None, releases / undone.release)
    except (ApplianceError, OSError) as error:
        run.warnings.append(f"{undone.before or 'no release'} does not serve: {error}")


def _is_complete(run: InstallRun) -> bool:
    """Whether this release is installed or staged, and every byte of it is right."""
    was_finished = (run.path / OK_FILE).exists()
    is_staged = (run.path / STAGED_FILE).exists()
    try:
        release = open_release(run.host.prefix, run.path, run.host.now(), is_on_trial=is_staged)
        check_release(release, run.on_progress)
    except ApplianceError as error:
        if was_finished:
            subjects = dict.fromkeys(one.subject for one in (error, *error.others))
            run.warnings += [f"not as it was installed, made right now: {subject}" for subject in subjects]
        return False
    return True


def _preflight(run: InstallRun, record: StepRecord) -> None:
    # Preflight has run before anything was written; here its result is written to the journal.
    assert run.preflight is not None, "an install from media has it"
    here = run.preflight.python.version if run.preflight.python else "to come with the bundle's packages"
    record.note = f"Python {here}, CPU variants {' '.join(run.preflight.variants)}"


def _import(run: InstallRun, record: StepRecord) -> None:
    assert run.admitted is not None, "an install from media has it"
    prefix = run.host.prefix
    accept(prefix, run.found, read_root(prefix) or run.trust, run.exemption)
    if run.was_complete:
        record.note = f"nothing to copy, {_seal_models(run)}"
        return
    run.found = import_layout(run.admitted.layout, run.path, run.found, run.trust, run.host.now())
    done = import_files(prefix, run.admitted.media.source, run.path, run.found.value, run.on_progress)
    run.copied = done.copied
    run.warnings += [f"removed {name}: nothing signed names it" for name in done.removed]
    held = f", {done.count.held_bytes / 1e6:.0f} MB of them from this host" if done.count.held_bytes else ""
    record.note = f"{done.copied} files copied{held}, {done.kept} were right, {_seal_models(run)}"


def _seal_models(run: InstallRun) -> str:
    """Seal the models, whose every byte was just compared; gives a part of the step's note."""
    outcomes = seal_models(run.host.prefix, run.path, run.found.value.contents)
    run.warnings += seal_warnings(outcomes)
    return f"{sum(one.is_sealed for one in outcomes.values())} of {len(outcomes)} sealed"


def _packages(run: InstallRun, record: StepRecord) -> None:
    system = run.host.card.system.os
    wanted = wanted_packages(run.host.prefix, run.path, run.found.value.contents, system)
    if not install_packages(wanted, run.programs):
        run.warnings.append(f"{POLICY} of this machine decided which services the packages start")
    record.note = ", ".join(f"{package.name} {package.version}" for package in wanted) or "nothing to install"


def _find_python(run: InstallRun) -> Interpreter:
    if run.python is None:
        assert run.preflight is not None, "an install from media has it"
        run.python = run.preflight.require_python()
    return run.python


def _needs_environment(run: InstallRun) -> bool:
    if run.was_complete:
        return False
    if not (run.path / "venv").is_dir():
        return True
    try:
        check_environment(run.host.prefix, run.path, run.found.value.contents, _find_python(run), ignore)
    except ApplianceError:
        return True
    return False


def _bootstrap(run: InstallRun, _record: StepRecord) -> None:
    prefix, contents = run.host.prefix, run.found.value.contents
    if run.preflight is not None:
        run.trial = begin_trial(prefix, run.path, contents, run.preflight.variants, run.programs)
    run.uv = extract_uv(prefix, run.path, contents, prefix.scratch)
    make_venv(run.path, _find_python(run), run.programs)


def _environment(run: InstallRun, _record: StepRecord) -> None:
    assert run.uv is not None, "the step before has taken it out of the bundle"
    prefix, contents, python = run.host.prefix, run.found.value.contents, _find_python(run)
    build_environment(prefix, run.path, contents, python, run.programs, run.uv)
    check_environment(prefix, run.path, contents, python, ignore)


def _runtime(run: InstallRun, record: StepRecord) -> None:
    if run.was_complete:
        facts = read_facts(run.path)
        run.choice = Choice(facts.cpu_variant, 0, facts.tokens_per_s)
        run.python = Interpreter(Path(facts.python), facts.python_version)
        record.note = f"{facts.cpu_variant}, as chosen before"
        return
    _find_python(run)
    assert run.preflight is not None, "an install from media has it"
    variants, contents = run.preflight.variants, run.found.value.contents
    run.choice = prepare_runtime(
        run.host.prefix, run.path, contents, variants, run.programs, run.on_progress, run.trial
    )
    seal_runtime(run.path / "runtime", contents)
    record.note = f"{run.choice.variant}, {run.choice.generated_tokens_per_s} tokens/s"


def _save(run: InstallRun, record: StepRecord) -> None:
    if not (run.path / OK_FILE).is_file():
        record.note = "nothing was installed before"
        return
    save_configuration(run.host.prefix, run.path)
    # A release on trial has a way back already: where its configuration is cut off, the host returns.
    if run.is_current and run.change is None:
        _announce(run, SWITCHING)


def _undo_save(run: InstallRun) -> None:
    """What runs last in an undo: the services of the release before, then the record of the change."""
    prefix = run.host.prefix
    if run.is_tried:
        run.services.restore(prefix.opt / run.before if run.before else None, run.path)
    if run.change is None:
        clear_change(prefix)
    elif not _goes_on(run.change, prefix):
        # The watch has ended when it read the record of this run.
        write_change(prefix, run.change)
        run.services.watch()


def _goes_on(change: HostChange, prefix: Prefix) -> bool:
    try:
        found = read_change(prefix)
    except ApplianceError:
        return False
    return found is not None and (found.op, found.release, found.phase) == (change.op, change.release, change.phase)


def _announce(run: InstallRun, phase: str) -> None:
    now = utc_text(run.host.now())
    write_change(run.host.prefix, HostChange(INSTALL, run.path.name, run.back, phase, now))


def _render(run: InstallRun, record: StepRecord) -> None:
    prefix = run.host.prefix
    run.played = render(prefix, run.path, run.found.value, run.site, run.programs, run.host.now(), run.on_progress)
    record.note = f"ok={run.played.ok} changed={run.played.changed}"
    applied = read_site(prefix.site_file)
    if replace(applied, digest=run.site.digest) != run.site:
        applied = run.site  # edited while this ran: what was rendered is stored, and `status` reports the difference
    write_file(run.path / SITE_FILE, applied.data)
    run.facts = run.compute_facts(applied)
    # An interrupted run may have written facts whose candidate was never tried.
    run.is_same = run.was_complete and not run.was_interrupted and run.facts == read_facts(run.path)


def _undo_render(run: InstallRun) -> None:
    # A release that goes on serving needs the configuration that it serves with.
    if (run.path / OK_FILE).is_file():
        restore_configuration(run.host.prefix, run.path)


def _candidate(run: InstallRun, record: StepRecord) -> None:
    assert run.facts is not None, "the step before has computed them"
    run.is_tried = True
    write_file(run.path / FACTS_FILE, write_facts(run.facts))
    if run.needs_window():
        run.services.make_room(run.opened())
    run.answer = run.services.try_candidate(run.opened(), run.on_progress)
    record.note = run.answer[:200]


def _stage(run: InstallRun, record: StepRecord) -> None:
    run.end = STAGED
    if (run.path / OK_FILE).is_file():
        record.note = "installed already"
    assert run.facts is not None, "the step before has computed them"
    if run.is_tried:
        run.services.end_candidate(run.opened())
    sync_file_system(run.path)
    write_file(run.path / FACTS_FILE, write_facts(run.facts))
    write_file(run.path / STAGED_FILE, b"")


def _way_back(run: InstallRun, record: StepRecord) -> None:
    prefix = run.host.prefix
    if not keep_reserve(prefix):
        run.warnings.append("the disk has no room for the reserve of a return: free some space")
    install_rollback_program(prefix)
    if run.is_current or not run.back:
        record.note = "this release goes on" if run.is_current else "none served before"
        return
    back = prefix.releases / run.back
    save_configuration(prefix, back)
    point_previous(prefix, target_of(prefix, back))
    record.note = f"to {run.back}"


def _undo_way_back(run: InstallRun) -> None:
    if previous_target(run.host.prefix) != run.previous:
        point_previous(run.host.prefix, run.previous)


def _switch(run: InstallRun, _record: StepRecord) -> None:
    assert run.facts is not None, "the step before has computed them"
    prefix = run.host.prefix
    run.is_tried = True
    # Where none served before, the rename alone decides: there is nothing to undo.
    if run.back and not run.is_current:
        _announce(run, SWITCHING)
    complete(run.path, run.facts)
    if (run.path / STAGED_FILE).exists():
        (run.path / STAGED_FILE).unlink()
        sync_folder(run.path)
    if run.needs_window():
        run.services.make_room(run.opened())
    run.services.enable(run.opened())
    point_at(prefix, target_of(prefix, run.path))


def _undo_switch(run: InstallRun) -> None:
    point_at(run.host.prefix, run.before)


def _gate(run: InstallRun, _record: StepRecord) -> None:
    """Wait until users reach the release that `current` names."""
    prefix = run.host.prefix
    try:
        release = open_current(prefix, run.host.now())
        if release.path != run.path or release.facts != run.facts:
            raise gate_failed(str(prefix.current), run.path.name, release.path.name)
        # A gateway that was started here has compared the same files before it listens.
        if not run.services.follow(release) and not run.is_same:
            check_release(release, run.on_progress, models=False)
    except ApplianceError as error:
        raise gate_failed(error.subject, error.expected, error.found, error.hint) from error
    except OSError as error:
        raise gate_failed(str(error.filename or run.path), "readable files", error.strerror or "") from error
    run.release = release


def _trying(run: InstallRun, record: StepRecord) -> None:
    if run.is_current:
        record.note = "its trial goes on"
    else:
        _announce(run, TRYING)
        record.note = f"good after {run.site.trial.good_after} s; else back to {run.back}"
    remove_configuration(run.host.prefix, run.path.name)
    run.services.watch()
    run.end = TRYING_NOW


def _commit(run: InstallRun, _record: StepRecord) -> None:
    assert run.release is not None, "the gate has opened it"
    _announce(run, COMMITTING)
    run.warnings += make_good(run.release, run.services, run.host.now())


INSTALL_STEPS: tuple[ChangeStep[InstallRun], ...] = (
    ChangeStep("settle", "a switch that was cut off is undone", _settle),
    ChangeStep("plan", "nothing", _plan),
    ChangeStep("preflight", "nothing", _preflight),
    ChangeStep("import", "metadata, floors, and the files of the release", _import),
    ChangeStep("packages", "OS packages", _packages, is_needed=lambda run: run.host.prefix.is_system),
    ChangeStep("bootstrap", "an empty environment", _bootstrap, is_needed=_needs_environment),
    ChangeStep("environment", "the environment of the release", _environment, is_needed=lambda run: bool(run.uv)),
    ChangeStep("runtime", "the engine's programs, and the choice of a CPU variant", _runtime),
    ChangeStep("save", "a copy of the configuration that is about to be written again", _save, _undo_save),
    ChangeStep("render", "users, folders and the configuration", _render, _undo_render),
    ChangeStep("candidate", "the facts of the release", _candidate, is_needed=lambda run: not run.is_same),
    ChangeStep("stage", "the mark of a staged release", _stage),
    ChangeStep("way-back", "the link previous, and what a return needs", _way_back, _undo_way_back),
    ChangeStep(
        "switch", "the record, the marks of the release, its units, and the link current", _switch, _undo_switch
    ),
    ChangeStep("gate", "the services that run", _gate),
    ChangeStep("trying", "the record: the release is watched", _trying, is_needed=InstallRun.is_on_trial),
    ChangeStep(
        "commit",
        "the pinned root, the engines of other releases, and the record",
        _commit,
        is_needed=lambda run: not run.is_on_trial(),
        is_final=True,
    ),
)
"""In the order in which they run."""
SWITCH_STEPS = tuple(
    step for step in INSTALL_STEPS if step.name in ("settle", "save", "way-back", "switch", "gate", "trying", "commit")
)
"""The steps of `appliance switch`, after the release was staged."""
UNTIL_STAGED = INSTALL_STEPS[: [step.name for step in INSTALL_STEPS].index("stage") + 1]
"""The steps of an install that stops before the switch."""
WHOLE_INSTALL = tuple(step for step in INSTALL_STEPS if step.name != "stage")
"""The steps of an install that goes on to the switch."""
