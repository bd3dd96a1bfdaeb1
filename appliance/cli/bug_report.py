"""The report of an error that no command expected: what a developer needs, without environment and local values."""

from __future__ import annotations

import platform
import shlex
import tempfile
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path


def format_report(error: BaseException, arguments: Sequence[str]) -> str:
    """The versions of program and system, the command line, and where the error came from."""
    return (
        f"airgap-appliance {version('airgap-appliance')}, Python {platform.python_version()}, {platform.platform()}\n"
        f"appliance {shlex.join(arguments)}\n\n{''.join(traceback.format_exception(error))}"
    )


def write_report(report: str) -> Path:
    """Write a report to a new file that only this user can read.

    Raises:
        OSError: the folder for temporary files takes none.
    """
    descriptor, path = tempfile.mkstemp(prefix="appliance-report-", suffix=".txt")
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(report)
    return Path(path)
