"""What an install would do, for the person who decides, and what it did.

Owns both values, and the interface by which an install asks the command line. The plan is computed before anything is
written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from appliance.host.change.journal import JournalEntry
from appliance.host.change.step_runner import StepRecord
from appliance.host.layout.prefix import Prefix
from appliance.host.layout.unit_files import unit_names
from appliance.host.models.fit import Fit
from appliance.host.models.switch_memory import SwitchMemory, judge_switch
from appliance.host.playbook.ansible_run import PlaybookCounts
from appliance.host.preflight.host_check import PreflightResult
from appliance.host.preflight.inputs import Host
from appliance.host.preflight.serving import serving_workloads
from appliance.host.release.release import Release, current_target
from appliance.host.runtime.variant_choice import Choice
from bundles.bundle import Bundle
from bundles.chunks.source import ChunkSource
from signing.verified import Verified


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """What an install would do.

    Args:
        bundle: verified.
        prefix: the host.
        release: the folder of the release.
        files, size_bytes: what would be copied from the medium, at most.
        packages: files of OS packages that are installed: those for this machine's system that are absent or of
            another version. Empty below a `--prefix`.
        system: this machine's system, such as `debian-12`.
        units: the systemd units; empty below a `--prefix`.
        memory: the verdict about the models' memory; None where no model could be read.
        before: what `current` names, or None where nothing serves.
        switch: the memory of the switch from the release that serves; None where no model could be read.
    """

    bundle: Verified[Bundle]
    prefix: Prefix
    release: Path
    files: int
    size_bytes: int
    packages: tuple[str, ...]
    system: str
    units: tuple[str, ...]
    memory: Fit | None
    before: str | None
    switch: SwitchMemory | None = None


@dataclass(frozen=True, slots=True)
class InstallResult:
    """What an install did.

    Args:
        release: the one that serves now.
        was_complete: whether it had been installed before, with every byte right.
        played: the tasks of the playbook, as Ansible counted them.
        choice: the CPU variant, with its measurement.
        copied: how many files had to be copied.
        answer: of the candidate; empty where nothing had changed.
        steps: those that were done, with their times.
        warnings: for people.
        interrupted: the step in which an earlier run was cut off, or None.
        end: `good`, `trying` or `staged`; see `appliance.host.install.install_run`.
        was_current: whether it served before.
    """

    release: Release
    was_complete: bool
    played: PlaybookCounts
    choice: Choice
    copied: int
    answer: str
    steps: tuple[StepRecord, ...]
    warnings: tuple[str, ...]
    interrupted: JournalEntry | None
    end: str = "good"
    was_current: bool = False


class Dialogue(Protocol):
    """Who is asked during an install, before anything of the bundle is written."""

    def on_verified(self, bundle: Verified[Bundle], source: ChunkSource) -> None:
        """Called once the bundle is verified, before this program judges whether it can apply the bundle."""

    def on_planned(self, plan: InstallPlan) -> None:
        """Called with the plan; an exception ends the install, and nothing was written."""


class Silent:
    """Asks nobody."""

    def on_verified(self, bundle: Verified[Bundle], source: ChunkSource) -> None:
        """Go on."""

    def on_planned(self, plan: InstallPlan) -> None:
        """Go on."""


def plan_install(
    host: Host, release: Path, found: Verified[Bundle], preflight: PreflightResult, *, is_here: bool = True
) -> InstallPlan:
    """Describe what an install would do.

    Args:
        host: where to install.
        release: the folder of the release.
        found: verified.
        preflight: of this bundle on this host.
        is_here: whether the host is this machine; on another one nothing is installed, as far as is known.

    Raises:
        DriftError: the name of the link to the current release belongs to something else.
    """
    prefix, contents, system = host.prefix, found.value.contents, host.card.system.os
    switch = None
    if preflight.models:
        serving = serving_workloads(prefix, host.now(), release) if is_here else ()
        switch = judge_switch(serving, preflight.models, host.card)
    return InstallPlan(
        found,
        prefix,
        release,
        preflight.missing_files,
        preflight.missing_bytes,
        preflight.packages,
        system,
        unit_names(contents, found.value.manifest) if prefix.is_system else (),
        preflight.memory,
        current_target(prefix) if is_here else None,
        switch,
    )
