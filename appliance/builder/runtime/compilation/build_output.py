"""The output of cmake and ninja: its progress, and the error that a failure becomes.

Owns which lines of a long output a person needs. All others are in the log.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from bundles.progress import OnProgress, Progress
from signing.errors import ApplianceError, HostUnfitError

_STEP = re.compile(r"\[(\d+)/(\d+)\] ")
_LAST_LINES = 12
_LINE_LENGTH = 240


@dataclass(slots=True)
class BuildOutput:
    """The lines so far: progress is passed on, and the lines that explain a failure are kept.

    Args:
        on_progress: called with steps done, or None.
    """

    on_progress: OnProgress | None = None
    last: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    reason: str = ""
    failing: bool = False

    def on_line(self, line: str) -> None:
        """Take one line, without its end."""
        step = _STEP.match(line)
        if step or line.startswith("ninja: "):
            self.failing = False
        if step and self.on_progress:
            self.on_progress(Progress("compiling the runtime", int(step[1]), int(step[2]), "steps"))
        if line.startswith("FAILED: ") and not self.failed:
            self.failing = True
        if self.failing:
            self.failed.append(line)
        if line.startswith("CMake Error") and not self.reason:
            self.reason = line
        if line:
            self.last = [*self.last[1 - _LAST_LINES :], line]

    def failure(self, name: str, status: int, log: Path, folder: Path) -> ApplianceError:
        """The error for a program that failed.

        Args:
            name: `cmake` or `ninja`.
            status: its exit status.
            log: the whole output.
            folder: what to remove to start over.
        """
        # ninja prints `FAILED: [code=1] <output>`, then the command, then what the command printed.
        subject, command, lines = name, f"exit status 0, not {status}", self.last
        if self.failed:
            subject = self.failed[0].removeprefix("FAILED: ").split("] ")[-1].strip()
            command = _shorten(self.failed[1] if len(self.failed) > 1 else "", 2 * _LINE_LENGTH)
            lines = self.failed[2:] or self.last
        lines = [*([self.reason] if self.reason else []), *lines[-_LAST_LINES:]]
        text = "\n".join(_shorten(line, _LINE_LENGTH) for line in lines)
        hint = f"the whole log: {log}; to start over, remove {folder}"
        if "No space left on device" in text:
            return ApplianceError("disk.full", subject, expected="room on the disk", found=text, hint=hint)
        if "Killed signal" in text or status == -9:
            return HostUnfitError(
                "runtime.out-of-memory", subject, expected="about 1 GiB free for each processor", found=text, hint=hint
            )
        code = "runtime.compile-failed" if name == "ninja" else "runtime.configure-failed"
        return ApplianceError(code, subject, expected=f"success of {command}", found=text, hint=hint)


def _shorten(line: str, length: int) -> str:
    # The head names the program, the tail the file.
    return line if len(line) <= length else f"{line[: length // 3]} … {line[-(length - length // 3) :]}"
