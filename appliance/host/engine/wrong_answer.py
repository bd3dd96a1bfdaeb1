"""The error for a model that does not answer as its release needs, before the switch to that release."""

from __future__ import annotations

from signing.errors import ApplyRestoredError


def wrong_answer(model: str, expected: str, found: str) -> ApplyRestoredError:
    """Make the error.

    Args:
        model: its name.
        expected: what a right model gives.
        found: what this one gave.
    """
    return ApplyRestoredError(
        "candidate.wrong-answer",
        model,
        expected=expected,
        found=found,
        hint="the release that served before still serves; show this to the person who built the bundle",
    )
