"""A person at a terminal: commands typed as a page shows them, and what is typed when they ask."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pexpect

TOP = Path(__file__).resolve().parents[2]


@dataclass
class Session:
    """A terminal in a folder, and the page whose commands are typed there.

    Args:
        folder: the working directory.
        page: command lines that stand on it; each that is typed is crossed out.
        env: further variables.
    """

    folder: Path
    page: list[str]
    env: dict[str, str] = field(default_factory=dict)
    open: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.open = list(self.page)

    def follow(self, line: str, change: Mapping[str, str] | None = None, secret: str = "", code: int = 0) -> str:
        """Type a line of the page.

        Args:
            line: as it stands there.
            change: what a person puts in place of an example's names.
            secret: typed whenever a passphrase or PIN is asked for.
            code: the exit code that it must have.
        """
        assert line in self.page, f"not on the page: {line}"
        if line in self.open:
            self.open.remove(line)
        return self.type(line, change, secret, code)

    def type(self, line: str, change: Mapping[str, str] | None = None, secret: str = "", code: int = 0) -> str:
        """Type any line, and return what the terminal showed."""
        for old, new in (change or {}).items():
            line = line.replace(old, new)
        program = f"{shlex.quote(sys.executable)} -m appliance.cli.main"
        line = line.replace("appliance ", f"{program} ", 1)
        env = {**os.environ, **self.env, "PYTHONPATH": str(TOP), "NO_COLOR": "1", "TERM": "dumb"}
        child = pexpect.spawn("bash", ["-c", line], cwd=str(self.folder), env=env, encoding="utf-8", timeout=280)
        child.setwinsize(50, 400)
        shown = ""
        while True:
            at = child.expect(
                [r"(?i)(?:passphrase|PIN)[^\n]*:\s*$", r"Repeat[^\n]*:\s*$", r"sign this\?[^\n]*:\s*$", pexpect.EOF]
            )
            shown += child.before + (child.after if isinstance(child.after, str) else "")
            if at == 3:
                break
            child.sendline("y" if at == 2 else secret)
        child.close()
        assert child.exitstatus == code, f"{line}\n{shown}"
        return shown.replace("\r\n", "\n")
