"""`appliance config apply`: what the site's file decides, brought into the release that serves, without a stick.

Owns the order of this change. The release stays; its rendered configuration, and with it its services, are replaced.

Rules (threats T32, T35, T36):
- the playbooks run from the release's copy, of which every byte is verified first;
- engines are tried only where their configuration changes; users go on with the old ones until then;
- the old configuration is saved, and the change is recorded, before the first file is changed. Whatever fails until
  users reach the new one brings the old one back; so does the next boot or command after an interruption;
- one change runs at a time, under the lock of installs.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from appliance.host.activation.services import NoServices, Services
from appliance.host.activation.switch import complete
from appliance.host.activation.systemd_services import SystemdServices
from appliance.host.change.change_file import (
    INSTALL,
    SWITCHING,
    HostChange,
    change_path,
    clear_change,
    read_change,
    utc_text,
    write_change,
)
from appliance.host.change.journal import DONE, FAILED, STARTED, Journal
from appliance.host.change.way_back import remove_configuration, restore_configuration, save_configuration
from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.install_lock import hold
from appliance.host.layout.places import FACTS_FILE, REPAIR_HINT, SITE_FILE
from appliance.host.layout.prefix import PRIVATE, Prefix, make_folder
from appliance.host.layout.unit_files import ENGINE, RENDERED
from appliance.host.machine.card import Card
from appliance.host.maintenance.configuration_memory import check_levels, check_memory
from appliance.host.playbook.ansible_run import render
from appliance.host.process.programs import Programs
from appliance.host.release.release import Release, open_current
from appliance.host.release.release_check import check_release, rendered_digests
from appliance.host.release.release_json import Facts, write_facts
from appliance.host.release.rendered_configuration import read_configuration
from appliance.host.site.config import SiteConfig, read_site
from appliance.host.site.site_check import check_models, check_site
from bundles.progress import OnProgress, ignore
from signing.errors import ApplianceError, ApplyBrokenError, ApplyRestoredError, BusyError, HostUnfitError

_ENGINE = ("config/engine-", f"{RENDERED}/{ENGINE}@")


JOURNAL_STEP = "config"


@dataclass(frozen=True, slots=True)
class AppliedConfiguration:
    """What a change of the configuration did.

    Args:
        release: the one that serves, with its new configuration.
        changed: the rendered files that are different, by path below the release; none where all were right already.
        answer: of the last engine that was tried; empty where no engine's configuration changed.
    """

    release: Release
    changed: tuple[str, ...]
    answer: str


def apply_configuration(
    prefix: Prefix, card: Card, now: Callable[[], datetime], *, is_root: bool, on_progress: OnProgress = ignore
) -> AppliedConfiguration:
    """Bring the site's file into the release that serves.

    Args:
        prefix: the host.
        card: of the machine; its memory suffices.
        now: the clock, in UTC.
        is_root: whether this program may change all of the machine.
        on_progress: called with what is done.

    Raises:
        UsageError: the site's file is wrong, or nothing is installed; nothing was changed.
        HostUnfitError: this user may not change the machine, the new port is taken, or this host has not the memory or
            the seals that the models need then; nothing was changed.
        DamagedError, NotTrustedError, DriftError: the release is not as it was installed; nothing was changed.
        ApplyRestoredError: a step failed; the configuration from before serves.
        ApplyBrokenError: a step failed, and the configuration from before could not be restored.
        BusyError: another change runs on this host.
    """
    site = read_site(prefix.site_file)
    check_site(prefix, site, now())
    if prefix.is_system and not is_root:
        raise _unfit("user", "root", "another user", "run it with sudo")
    open_current(prefix, now())  # before folders are made: nothing may be installed
    with hold(prefix) as lock:
        undo_interrupted(prefix)
        refuse_unfinished(prefix)
        release = open_current(prefix, now())
        check_release(release, on_progress, models=False)
        if site.digest == release.facts.site:
            return AppliedConfiguration(release, (), "")
        check_models(prefix, site, [model.name for model in release.contents.models])
        _check_port(release, site)
        check_memory(release, site, card)
        check_levels(release, site)
        scratch = prefix.scratch / "configuration"
        shutil.rmtree(scratch, ignore_errors=True)
        make_folder(scratch, PRIVATE)
        try:
            programs = Programs(scratch, lock)
            return _Change(release, site, programs, now, on_progress).run()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def finish_interrupted(prefix: Prefix) -> bool:
    """Undo a change of the configuration that was interrupted, before the release is opened.

    Args:
        prefix: the host; its folders may be missing.

    Returns:
        Whether there was one.

    Raises:
        BusyError: a change is at work.
        DriftError: the record of the unfinished change breaks its grammar.
    """
    if _interrupted(prefix) is None:
        return False
    with hold(prefix):
        return undo_interrupted(prefix)


def undo_interrupted(prefix: Prefix) -> bool:
    """Bring the configuration from before an interrupted change back; the caller holds the lock.

    Returns:
        Whether there was such a change.
    """
    change = _interrupted(prefix)
    if change is None:
        return False
    if (prefix.releases / change.release).is_dir():
        restore_configuration(prefix, prefix.releases / change.release)
    _end_change(prefix, change.release)
    return True


def refuse_unfinished(prefix: Prefix) -> None:
    """Refuse to change the configuration while another change is unfinished.

    Raises:
        BusyError: it is; the hint names what ends it.
    """
    change = read_change(prefix)
    if change is None:
        return
    option = prefix.option
    ways = {
        "install": f"wait until the release is good (appliance status{option}), or return: appliance rollback{option}",
        "rollback": f"run it again: appliance rollback {change.release}{option}",
        "uninstall": f"run it again: appliance uninstall{' --purge' * (change.purge == 'yes')}{option}",
        "restore": f"run the same `appliance restore` again{option}",
    }
    raise BusyError(
        "change.unfinished",
        str(change_path(prefix)),
        expected="a host on which nothing is unfinished",
        found=f"{change.op} of {change.release or 'this host'}, {change.phase} since {change.since}",
        hint=ways[change.op],
    )


def _interrupted(prefix: Prefix) -> HostChange | None:
    """The record of an interrupted change of the configuration: a release that is changed to itself."""
    change = read_change(prefix)
    is_own = change is not None and change.phase == SWITCHING and change.release == change.before
    return change if is_own else None


class _Change:
    """One change under the lock, with the values that its steps share."""

    def __init__(
        self,
        release: Release,
        site: SiteConfig,
        programs: Programs,
        now: Callable[[], datetime],
        on_progress: OnProgress,
    ) -> None:
        self.release, self.site, self.programs, self.now, self.on_progress = release, site, programs, now, on_progress
        self.prefix, self.path = release.prefix, release.path
        self.services: Services = SystemdServices(self.prefix, now) if self.prefix.is_system else NoServices(programs)
        self.is_tried = False

    def run(self) -> AppliedConfiguration:
        """Keep the old configuration, then render, try, switch and check the new one."""
        name, journal = self.path.name, Journal(self.prefix.journal / "install.jsonl", self.now)
        journal.write(name, JOURNAL_STEP, STARTED)
        save_configuration(self.prefix, self.path)
        write_change(self.prefix, HostChange(INSTALL, name, name, SWITCHING, utc_text(self.now())))
        try:
            applied = self._apply()
        except BaseException as error:
            with suppress(OSError):
                journal.write(name, JOURNAL_STEP, FAILED, getattr(error, "code", type(error).__name__))
            self._restore(error)
            if isinstance(error, ApplianceError) and not isinstance(error, ApplyRestoredError):
                raise _restored(error) from error
            raise
        # From here on the new configuration stays, whatever fails.
        _end_change(self.prefix, name)
        journal.write(name, JOURNAL_STEP, DONE, ", ".join(applied.changed) or "no file changed")
        if applied.changed:
            self.services.retire(applied.release)
        return applied

    def _apply(self) -> AppliedConfiguration:
        render(
            self.prefix, self.path, self.release.bundle.value, self.site, self.programs, self.now(), self.on_progress
        )
        write_file(self.path / SITE_FILE, self.site.data)
        old, facts = self.release.facts, self._facts()
        release = replace(self.release, facts=facts)
        changed = tuple(name for name, digest in facts.config.items() if old.config[name] != digest)
        read_configuration(release)
        answer = ""
        if any(name.startswith(_ENGINE) for name in changed):
            self.is_tried = True
            write_file(self.path / FACTS_FILE, write_facts(facts))
            answer = self.services.try_candidate(release, self.on_progress)
        self.is_tried = bool(changed)
        complete(self.path, facts)
        self.services.enable(release)
        opened = open_current(self.prefix, self.now())
        if not self.services.follow(opened):
            check_release(opened, self.on_progress, models=False)
        return AppliedConfiguration(opened, changed, answer)

    def _facts(self) -> Facts:
        config = rendered_digests(self.path, self.release.facts.config, REPAIR_HINT)
        return replace(self.release.facts, site=self.site.digest, config=config)

    def _restore(self, error: BaseException) -> None:
        try:
            undo_interrupted(self.prefix)
            if self.is_tried:
                self.services.restore(self.path, self.path)
        except (ApplianceError, OSError) as second:
            raise ApplyBrokenError(
                "config.not-restored",
                str(self.prefix.site_file),
                expected="the configuration from before to serve again",
                found=f"{second}, after {error}",
                hint=f"see `appliance status{self.prefix.option}` and `journalctl -b`; then run the same command again",
            ) from second


def _end_change(prefix: Prefix, release: str) -> None:
    # What was saved goes first: without it, a way back to this release leaves its files alone.
    remove_configuration(prefix, release)
    clear_change(prefix)


def _check_port(release: Release, site: SiteConfig) -> None:
    """Refuse an address that another program listens on, before anything is changed."""
    gateway = read_configuration(release).gateway
    if site.port == 0 or (gateway.bind, gateway.port) == (site.bind, site.port):
        return
    family = socket.AF_INET6 if ":" in site.bind else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((site.bind, site.port))
        except OSError as error:
            where = f"{site.bind} port {site.port}"
            remedy = f"choose another port in {release.prefix.site_file}, or end the program: ss -ltnp"
            raise _unfit(where, "an address that no program uses", error.strerror or "", remedy) from None


def _restored(error: ApplianceError) -> ApplyRestoredError:
    return ApplyRestoredError(
        error.code,
        error.subject,
        expected=error.expected,
        found=error.found,
        hint=f"the configuration from before serves; {error.hint}".removesuffix("; "),
        others=error.others,
    )


def _unfit(what: str, expected: str, found: str, remedy: str) -> HostUnfitError:
    return HostUnfitError("host.unfit", what, expected=expected, found=found, hint=remedy)
