"""`appliance install`: from an untrusted medium to a release that serves (docs/architecture.md, The host).

Owns the order of the steps, and decides which of them have to be done. Each step compares what is on the disk with what
should be there, so it does not matter where the last run stopped. What is right is left alone; what is missing or
damaged is made again.

Rules:
- the chain of trust is verified before anything is written, floors and metadata before any content (threats T1, T2);
- the old release serves until the one rename of `current`, and again if the gate after it fails (threat T35);
- one install runs at a time, and its children inherit the lock (threat T36).
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from appliance.host.activation.services import NoServices, Services
from appliance.host.activation.switch import complete, point_at, target_of
from appliance.host.activation.systemd_services import SystemdServices
from appliance.host.change.journal import Journal, JournalEntry
from appliance.host.install.bundle_admission import (
    AdmittedBundle,
    admit,
    exemption_notices,
    expiry_exemption,
    follow_root,
    release_path,
    run_preflight,
    verify_media,
)
from appliance.host.install.bundle_parts import check_parts
from appliance.host.install.hand_over import remove_unused_sets
from appliance.host.install.importer import accept, import_files, import_layout
from appliance.host.install.install_plan import Dialogue, InstallResult, Silent, plan_install
from appliance.host.install.os_packages import install_packages, wanted_packages
from appliance.host.install.policy_rc import POLICY
from appliance.host.install.steps import Steps
from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.install_lock import hold
from appliance.host.layout.places import FACTS_FILE, OK_FILE, SITE_FILE, rendered_names
from appliance.host.playbook.ansible_run import render
from appliance.host.preflight.host_check import PreflightResult
from appliance.host.preflight.inputs import Host, SourceMedia
from appliance.host.preflight.older import check_older
from appliance.host.process.programs import Programs
from appliance.host.release.bootstrap import extract_uv, make_venv
from appliance.host.release.environment import Interpreter, build_environment
from appliance.host.release.environment_check import check_environment
from appliance.host.release.release import Release, current_target, open_current, open_release
from appliance.host.release.release_check import check_release, describe
from appliance.host.release.release_json import Facts, read_facts, write_facts
from appliance.host.runtime.extraction import prepare_runtime
from appliance.host.runtime.variant_choice import Choice
from appliance.host.site.config import SiteConfig, read_site
from appliance.host.site.site_check import check_site
from appliance.host.trust.metadata_store import notices, trust_state
from appliance.host.trust.trust_store import read_root
from appliance.keys.signers.host_key import make_host_key
from bundles.bootstrap_set import bootstrap_root
from bundles.contents.contents import Contents
from bundles.progress import OnProgress, ignore
from signing.errors import ApplianceError, ApplyBrokenError, ApplyRestoredError

_SILENT = Silent()


def install(
    source: Path | SourceMedia,
    trust: bytes,
    host: Host,
    on_progress: OnProgress = ignore,
    dialogue: Dialogue = _SILENT,
) -> InstallResult:
    """Install a bundle, or finish or repair an install of it.

    Args:
        source: untrusted; a bundle, or a stick that holds all of it; or several media.
        trust: bytes of the root to verify against; pinned on this host where it has none.
        host: the machine, and the choices of its operator.
        on_progress: called with what is done.
        dialogue: receives what was verified and what is planned, before anything is written.

    Returns:
        What was done; the release serves.

    Raises:
        NotTrustedError: the chain of trust does not cover it, or an override does not hold; nothing was written.
        HostUnfitError: the machine cannot take it; with every reason; nothing was written.
        DamagedError: blobs differ; what was copied is kept for the next run.
        ApplyRestoredError: a step failed; the release that served before serves.
        ApplyBrokenError: a step failed, and the release that served before could not be restored.
        BusyError: another install runs on this host.
    """
    prefix = host.prefix
    known = trust_state(prefix)
    admitted = verify_media(source, trust, host)
    found = admitted.found
    contents = found.value.contents
    check_older(prefix, contents.name, contents.version, release_path(prefix, found.value), is_meant=host.may_go_back)
    dialogue.on_verified(found, admitted.media.source)
    check_parts(found.value.contents)
    preflight = run_preflight(admitted, host)
    dialogue.on_planned(plan_install(host, release_path(prefix, found.value), found, preflight))
    prefix.create()
    with hold(prefix) as lock:
        if trust_state(prefix) != known:
            # Another install has raised the floors in the meantime.
            admitted = admit(source, trust, host)
            preflight = run_preflight(admitted, host)
        make_host_key(prefix.trust)
        _empty(prefix.scratch)
        run = _Run(host, Programs(prefix.scratch, lock), preflight, on_progress, admitted, trust)
        try:
            return run.run()
        finally:
            _empty(prefix.scratch)


class _Run:
    """One run of an install under the lock, with the values that its steps share."""

    def __init__(
        self,
        host: Host,
        programs: Programs,
        preflight: PreflightResult,
        on_progress: OnProgress,
        admitted: AdmittedBundle,
        trust: bytes,
    ) -> None:
        found = admitted.found
        self.host, self.prefix, self.programs, self.preflight = host, host.prefix, programs, preflight
        self.on_progress, self.found, self.admitted, self.trust = on_progress, found, admitted, trust
        self.path = release_path(host.prefix, found.value)
        is_system = host.prefix.is_system
        self.services: Services = SystemdServices(host.prefix, host.now) if is_system else NoServices(programs)
        self.journal = Journal(host.prefix.journal / "install.jsonl", host.now)
        self.steps = Steps(self.journal, self.path.name, host.prefix.root)
        self.exemption = expiry_exemption(host, found)
        self.warnings = [*preflight.warnings, *notices(found), *admitted.media.notices]
        self.warnings += exemption_notices(host, self.exemption)
        self.copied = 0
        self.is_tried = self.is_reached = False

    def run(self) -> InstallResult:
        """Run every step, in order."""
        interrupted = self.journal.interrupted(self.path.name)
        with self.steps.step("plan") as record:
            site = read_site(self.prefix.site_file)
            check_site(self.prefix, site)
            current_target(self.prefix)
            was_complete = self._is_complete()
            record.note = "complete already" if was_complete else "to be installed"
        with self.steps.step("preflight") as record:
            # Preflight has run before anything was written; here its result is written to the journal.
            here = self.preflight.python.version if self.preflight.python else "to come with the bundle's packages"
            record.note = f"Python {here}, CPU variants {' '.join(self.preflight.variants)}"
        with self.steps.step("import") as record:
            accept(self.prefix, self.found, read_root(self.prefix) or self.trust, self.exemption)
            record.note = "nothing to copy" if was_complete else self._import()
        if self.prefix.is_system:
            self._install_packages()
        if was_complete:
            facts = read_facts(self.path)
            choice = Choice(facts.cpu_variant, 0, facts.tokens_per_s)
            python = Interpreter(Path(facts.python), facts.python_version)
        else:
            python = self.preflight.require_python()
            choice = self._materialise(python)
        kept, before = self._rendered(), current_target(self.prefix)
        try:
            return self._finish(site, choice, python, was_complete, interrupted)
        except BaseException:
            # Once users reach the new release it stays, whatever fails after that.
            if not self.is_reached:
                self._restore(kept, before)
            raise

    def _restore(self, kept: dict[Path, bytes], before: str | None) -> None:
        try:
            # A release that goes on serving needs the configuration that it serves with.
            for path, data in kept.items():
                write_file(path, data)
            if kept and self.path / SITE_FILE not in kept:
                (self.path / SITE_FILE).unlink(missing_ok=True)
            if self.is_tried:
                point_at(self.prefix, before)
                self.services.restore(self.prefix.opt / before if before else None, self.path)
        except (ApplianceError, OSError) as error:
            raise ApplyBrokenError(
                "install.not-restored",
                before or "no release served before",
                expected="the release that served before to serve again",
                found=str(error),
                hint="see `appliance status` and `journalctl -b`; then run the same command again",
            ) from error

    def _rendered_names(self) -> tuple[str, ...]:
        return rendered_names(self.prefix, self.found.value.contents, self.found.value.manifest)

    def _rendered(self) -> dict[Path, bytes]:
        """The rendered files, the site's file and the facts of a finished install, by path; empty where none is."""
        if not (self.path / OK_FILE).is_file():
            return {}
        paths = [self.path / name for name in (*self._rendered_names(), SITE_FILE, FACTS_FILE)]
        return {path: path.read_bytes() for path in paths if describe(path) is not None}

    def _finish(
        self,
        site: SiteConfig,
        choice: Choice,
        python: Interpreter,
        was_complete: bool,
        interrupted: JournalEntry | None,
    ) -> InstallResult:
        with self.steps.step("render") as record:
            played = render(
                self.prefix, self.path, self.found.value, site, self.programs, self.host.now(), self.on_progress
            )
            record.note = f"ok={played.ok} changed={played.changed}"
        applied = read_site(self.prefix.site_file)
        if replace(applied, digest=site.digest) != site:
            applied = site  # edited while this ran: what was rendered is stored, and `status` reports the difference
        write_file(self.path / SITE_FILE, applied.data)
        facts = self._facts(choice, python, applied)
        # An interrupted run may have written facts whose candidate was never tried.
        is_same = was_complete and interrupted is None and facts == read_facts(self.path)
        answer = "" if is_same else self._try_candidate(facts)
        release = self._switch(facts, is_checked=is_same)
        return InstallResult(
            release,
            was_complete,
            played,
            choice,
            self.copied,
            answer,
            tuple(self.steps.records),
            (*self.warnings, *self.admitted.media.source.notices),
            interrupted,
        )

    def _is_complete(self) -> bool:
        """Whether this release is installed and every byte of it is right."""
        was_finished = (self.path / OK_FILE).exists()
        try:
            check_release(open_release(self.prefix, self.path, self.host.now()), self.on_progress)
        except ApplianceError as error:
            if was_finished:
                subjects = dict.fromkeys(one.subject for one in (error, *error.others))
                self.warnings += [f"not as it was installed, made right now: {subject}" for subject in subjects]
            return False
        return True

    def _import(self) -> str:
        self.found = import_layout(self.admitted.layout, self.path, self.found, self.trust, self.host.now())
        done = import_files(self.prefix, self.admitted.media.source, self.path, self.found.value, self.on_progress)
        self.copied = done.copied
        self.warnings += [f"removed {name}: nothing signed names it" for name in done.removed]
        held = f", {done.count.held_bytes / 1e6:.0f} MB of them from this host" if done.count.held_bytes else ""
        return f"{done.copied} files copied{held}, {done.kept} were right"

    def _install_packages(self) -> None:
        with self.steps.step("packages") as record:
            system = self.host.card.system.os
            wanted = wanted_packages(self.prefix, self.path, self.found.value.contents, system)
            if not install_packages(wanted, self.programs):
                self.warnings.append(f"{POLICY} of this machine decided which services the packages start")
            record.note = ", ".join(f"{package.name} {package.version}" for package in wanted) or "nothing to install"

    def _materialise(self, python: Interpreter) -> Choice:
        contents = self.found.value.contents
        if not self._has_environment(contents, python):
            with self.steps.step("bootstrap"):
                uv = extract_uv(self.prefix, self.path, contents, self.prefix.scratch)
                make_venv(self.path, python, self.programs)
            with self.steps.step("environment"):
                build_environment(self.prefix, self.path, contents, python, self.programs, uv)
                check_environment(self.prefix, self.path, contents, python, ignore)
        with self.steps.step("runtime") as record:
            variants = self.preflight.variants
            choice = prepare_runtime(self.prefix, self.path, contents, variants, self.programs, self.on_progress)
            record.note = f"{choice.variant}, {choice.generated_tokens_per_s} tokens/s"
        return choice

    def _has_environment(self, contents: Contents, python: Interpreter) -> bool:
        if not (self.path / "venv").is_dir():
            return False
        try:
            check_environment(self.prefix, self.path, contents, python, ignore)
        except ApplianceError:
            return False
        return True

    def _facts(self, choice: Choice, python: Interpreter, site: SiteConfig) -> Facts:
        contents = self.found.value.contents
        config = {}
        for name in self._rendered_names():
            rendered = describe(self.path / name)
            if rendered is None:
                raise ApplyRestoredError(
                    "render.missing",
                    name,
                    expected="a file that the playbook writes",
                    found="none",
                    hint="install again",
                )
            config[name] = rendered[1]
        return Facts(
            name=contents.name,
            version=contents.version,
            manifest=self.found.value.manifest,
            cpu_variant=choice.variant,
            tokens_per_s=choice.generated_tokens_per_s,
            isolation=self.programs.isolation,
            python=str(python.path),
            python_version=python.version,
            site=site.digest,
            config=config,
        )

    def _try_candidate(self, facts: Facts) -> str:
        self.is_tried = True
        with self.steps.step("candidate") as record:
            write_file(self.path / FACTS_FILE, write_facts(facts))
            release = Release(self.path, self.prefix, self.found, facts)
            answer = self.services.try_candidate(release, self.on_progress)
            record.note = answer[:200]
        return answer

    def _switch(self, facts: Facts, *, is_checked: bool) -> Release:
        """Make `current` name the release, and wait until users reach it.

        Args:
            facts: of the release.
            is_checked: whether this run has compared every file of the release, and changed none.

        Raises:
            ApplyRestoredError: users do not reach it; `current` names the release of before again.
        """
        before = current_target(self.prefix)
        with self.steps.step("switch"):
            complete(self.path, facts)
            self.services.enable(Release(self.path, self.prefix, self.found, facts))
            point_at(self.prefix, target_of(self.prefix, self.path))
        self.is_tried = True
        try:
            with self.steps.step("gate"):
                release = open_current(self.prefix, self.host.now())
                if release.path != self.path or release.facts != facts:
                    raise _gate_failed(str(self.prefix.current), self.path.name, release.path.name)
                # A gateway that was started here has compared the same files before it listens.
                if not self.services.follow(release) and not is_checked:
                    check_release(release, self.on_progress, models=False)
        except ApplianceError as error:
            point_at(self.prefix, before)
            raise _gate_failed(error.subject, error.expected, error.found, error.hint) from error
        except OSError as error:
            point_at(self.prefix, before)
            raise _gate_failed(str(error.filename or self.path), "readable files", error.strerror or "") from error
        self.is_reached = True
        with self.steps.step("commit"):
            follow_root(self.prefix, release, self.host.now())
            self.services.retire(release)
            self._tidy()
        return release

    def _tidy(self) -> None:
        try:
            remove_unused_sets(self.prefix, self.found.value.manifest)
        except (ApplianceError, OSError) as error:
            self.warnings.append(f"programs of earlier installs stay in {bootstrap_root(self.prefix.root)}: {error}")


def _gate_failed(subject: str, expected: str, found: str, hint: str = "") -> ApplyRestoredError:
    return ApplyRestoredError(
        "gate.failed",
        subject,
        expected=expected,
        found=found,
        hint="the release that served before serves again; "
        + (hint or "run the same command once more, and check the disk if it fails again"),
    )


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
