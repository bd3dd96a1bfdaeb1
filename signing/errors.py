"""Every error that the project raises on purpose, as data.

Owns the tree of errors and the exit codes. It must never format for a terminal: the command line makes text from
these fields once, in `appliance.cli.console.terminal`.

Rules:
- an error holds what it is about (`subject`), what was `expected`, what was `found`, and the next step (`hint`);
- the class decides the exit code; `code` is a stable dotted name that scripts and tests may compare;
- *damaged* (copy it again) and *not trusted* (stop, ask a key holder) are different classes and never exchanged;
- what is not in this tree is our own bug, and leaves with exit code 70.
"""

from __future__ import annotations

from typing import ClassVar


class ApplianceError(Exception):
    """The root of the tree: something failed for a reason we know.

    Args:
        code: stable dotted name, for example `contents.file-changed`.
        subject: the file, key, field or command that it is about.
        expected: what should have been there; empty where nothing fits.
        found: what was there instead; empty where nothing fits.
        hint: the next command or act, in words a tired operator understands.
        others: further errors of the same check, so that all differences are reported at once.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        code: str,
        subject: str,
        *,
        expected: str = "",
        found: str = "",
        hint: str = "",
        others: tuple[ApplianceError, ...] = (),
    ) -> None:
        super().__init__(code, subject)
        self.code = code
        self.subject = subject
        self.expected = expected
        self.found = found
        self.hint = hint
        self.others = others

    def __str__(self) -> str:
        parts = [f"{self.code}: {self.subject}"]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.found:
            parts.append(f"found {self.found}")
        return "; ".join(parts)


class UsageError(ApplianceError):
    """The command, recipe or configuration was written wrongly."""

    exit_code = 2


class DamagedError(ApplianceError):
    """Bytes that the signed chain names differ or cannot be read: copy them again."""

    exit_code = 3


class NotTrustedError(ApplianceError):
    """Not covered by the chain of trust, or hostile: stop, and ask a key holder."""

    exit_code = 4


class NextStickError(ApplianceError):
    """Some blobs are on a stick that is not here."""

    exit_code = 5


class HostUnfitError(ApplianceError):
    """This machine cannot do it: wrong system, too little memory or disk, a tool missing."""

    exit_code = 6


class ApplyRestoredError(ApplianceError):
    """Applying failed and the state before it is back."""

    exit_code = 7


class ApplyBrokenError(ApplianceError):
    """Applying failed and a person has to look."""

    exit_code = 8


class DriftError(ApplianceError):
    """What runs or lies here is not what was installed."""

    exit_code = 9


class BusyError(ApplianceError):
    """Another run holds the lock."""

    exit_code = 75


def worst(errors: list[ApplianceError]) -> ApplianceError:
    """Join several errors into one that is raised: not trusted beats damaged, the rest keep their order.

    Args:
        errors: at least one error, in the order found.

    Returns:
        The gravest error, with the others attached to it.
    """
    rank = {NotTrustedError: 0, DamagedError: 1, NextStickError: 3}
    first = min(errors, key=lambda error: rank.get(type(error), 2))
    first.others = tuple(error for error in errors if error is not first)
    return first
