"""The refusal of a request for signatures, and what a signer does then."""

from __future__ import annotations

from signing.errors import NotTrustedError

HINT = "sign nothing; ask whoever sent this for the file in requests/ of the workspace"


def refused(subject: str, expected: str, found: str) -> NotTrustedError:
    """The error of a request that breaks a rule of its form.

    Args:
        subject: the file, item or field.
        expected, found: in words; no secret.
    """
    return NotTrustedError("request.refused", subject, expected=expected, found=found, hint=HINT)
