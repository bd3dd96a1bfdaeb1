"""What an install did, as the command line and tests read it."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.host.install.ansible_run import PlaybookCounts
from appliance.host.install.journal import JournalEntry
from appliance.host.install.steps import StepRecord
from appliance.host.release.release import Release
from appliance.host.runtime.variant_choice import Choice


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
