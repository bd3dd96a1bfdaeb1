"""What preflight found out about one thing: required, measured, and the remedy.

Owns the one shape of a finding, and the error that a list of findings makes. `appliance host check` shows all of them;
an install is refused by those that are problems.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from signing.errors import HostUnfitError

UNFIT = "host.unfit"


class Level(Enum):
    """Whether a finding prevents an install."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class HostFinding:
    """One thing that was looked at.

    Args:
        subject: what, such as `memory` or `disk at /opt`.
        required: what an install needs.
        measured: what is here.
        remedy: what a person can do; empty where the level is `OK`.
        level: whether it prevents an install.
        code: of the error, where it does.
    """

    subject: str
    required: str
    measured: str
    remedy: str = ""
    level: Level = Level.OK
    code: str = UNFIT

    @property
    def is_problem(self) -> bool:
        """Whether it prevents an install."""
        return self.level is Level.PROBLEM

    @property
    def text(self) -> str:
        """One sentence for people, as a warning."""
        return f"{self.subject}: {self.measured}, expected {self.required}" + (f"; {self.remedy}" * bool(self.remedy))


def problem(subject: str, required: str, measured: str, remedy: str, code: str = UNFIT) -> HostFinding:
    """A finding that prevents an install."""
    return HostFinding(subject, required, measured, remedy, Level.PROBLEM, code)


def warning(subject: str, required: str, measured: str, remedy: str) -> HostFinding:
    """A finding that a person should know, and that prevents nothing."""
    return HostFinding(subject, required, measured, remedy, Level.WARNING)


def judged(is_met: bool, subject: str, required: str, measured: str, remedy: str) -> HostFinding:
    """A finding that is a problem where the requirement is not met."""
    return HostFinding(subject, required, measured) if is_met else problem(subject, required, measured, remedy)


def refuse(findings: Iterable[HostFinding]) -> None:
    """Raise one error with all problems.

    Raises:
        HostUnfitError: there is at least one; the others are in `others`.
    """
    errors = [error_of(one) for one in findings if one.is_problem]
    if errors:
        errors[0].others = tuple(errors[1:])
        raise errors[0]


def error_of(finding: HostFinding) -> HostUnfitError:
    """The error of one problem."""
    return HostUnfitError(
        finding.code, finding.subject, expected=finding.required, found=finding.measured, hint=finding.remedy
    )
