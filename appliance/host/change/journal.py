"""The journal of installs: a line when a step begins and a line when it ends, each durable before the work goes on.

Owns `journal/install.jsonl` of a prefix. It informs people, and the next run's messages. It never decides whether a
step has to be done again: that follows from what the step left on the disk.

Rules:
- a line is appended with one write and fsynced; a power cut may leave a torn last line, which is skipped;
- beyond 1 MiB a new file is begun, and the one before it is kept as `install.1.jsonl`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from bundles.medium import sync_folder

STARTED, DONE, FAILED = "started", "done", "failed"
LAST = "commit"
"""The step after which nothing of an install is left to do."""
ENDS = ("stage", "trying", LAST)
"""The steps with which a run can end: staged, on trial, or good."""
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One line of the journal.

    Args:
        time: UTC, from this machine's clock; for people, never trusted.
        release: the release's folder name.
        step: a step's name, such as those of `appliance.host.install.steps`.
        state: `started`, `done` or `failed`.
        note: the error's code for a failed step, what was done for a finished one.
    """

    time: str
    release: str
    step: str
    state: str
    note: str = ""


class Journal:
    """The journal of one prefix.

    Args:
        path: of the file; its folder exists.
        now: the clock, in UTC.
    """

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        self._path = path
        self._now = now

    def write(self, release: str, step: str, state: str, note: str = "") -> None:
        """Append one line, durably."""
        is_new = self._turn()
        time = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        line = json.dumps(asdict(JournalEntry(time, release, step, state, note))) + "\n"
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            # After the torn line of an interrupted run, this one begins on a line of its own.
            size = os.fstat(descriptor).st_size
            is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, ("\n" * is_torn + line).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync_folder(self._path.parent)

    def read(self) -> list[JournalEntry]:
        """All whole lines, oldest first."""
        try:
            text = self._path.read_text("utf-8", "replace")
        except FileNotFoundError:
            return []
        return [entry for entry in map(_parse, text.splitlines()) if entry is not None]

    def interrupted(self, release: str) -> JournalEntry | None:
        """Find the step in which a run for a release was cut off, where no run has succeeded since.

        Args:
            release: the release's folder name.

        Returns:
            The line of its begin; None where no run was cut off.
        """
        begun = stopped = None
        for entry in self.read():
            if entry.state == STARTED:
                # Steps do not overlap: where one begins while another is open, that other was cut off.
                begun, stopped = entry, begun if begun and begun.release == release else stopped
            else:
                begun = None
                stopped = None if _is_end(entry, release) else stopped
        return begun if begun and begun.release == release else stopped

    def _turn(self) -> bool:
        try:
            is_full = self._path.stat().st_size > _MAX_BYTES
        except FileNotFoundError:
            return True
        if is_full:
            os.replace(self._path, self._path.with_name(f"{self._path.stem}.1{self._path.suffix}"))
        return is_full


def _is_end(entry: JournalEntry, release: str) -> bool:
    return entry.release == release and entry.step in ENDS and entry.state == DONE


def _parse(line: str) -> JournalEntry | None:
    try:
        value = json.loads(line)
        return JournalEntry(**{name: str(value[name]) for name in ("time", "release", "step", "state", "note")})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
