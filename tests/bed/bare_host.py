"""What the operator of a bare host types: the sheet from paper, the one command that it prints, and a yes.

Owns those words, for any kind of host. Nothing is put on a host but the sheet.

Rules:

- the command that installs is the last line that the check prints, as it stands there;
- the question is answered on a terminal of the host, as a person does.
"""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bed.host import Finished, Host

SHEET = "/root/sheet.sh"
QUESTION = "install this? [y/N]"
INSTALL_S = 280.0
# A terminal of its own, and a person who answers: `script` is part of every Debian.
_ON_A_TERMINAL = '(sleep 1; echo y) | script --quiet --return --command "$0" /dev/null'
_PYTHON = "dpkg-query --show --showformat='${Package}\\n' | grep -E '^(lib)?python3'"


@dataclass(frozen=True)
class Typed:
    """A line that was typed: its text, how it ended, and how long that took in seconds."""

    line: str
    finished: Finished
    seconds: float

    def __str__(self) -> str:
        return f"{self.line}\n  exit code {self.finished.code}, {self.seconds:.1f} s"


class Operator:
    """A person in front of a bare host.

    Args:
        host: has nothing of this project.
        user: the number of an ordinary user; 0 is root.
    """

    def __init__(self, host: Host, user: int = 0) -> None:
        self.host, self.user = host, user
        self.typed: list[Typed] = []

    def write_sheet(self, text: str) -> None:
        """Type the sheet from paper into a file."""
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "sheet.sh"
            path.write_text(text)
            path.chmod(0o644)
            self.host.put(path, SHEET)
        self.host.run(["chmod", "0711", "/root"])

    def check(self, stick: str, *more: str, timeout_s: float = INSTALL_S) -> Typed:
        """Run the sheet on a stick."""
        return self.type(["sh", SHEET, stick, *more], timeout_s=timeout_s)

    def agree(self, command: str, timeout_s: float = INSTALL_S) -> Typed:
        """Type the printed command on a terminal, and a yes to its question."""
        return self.type(["sh", "-c", _ON_A_TERMINAL, command], shown=command, timeout_s=timeout_s)

    def type(self, argv: Sequence[str], shown: str = "", timeout_s: float = INSTALL_S) -> Typed:
        """Run a command as this person."""
        user = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", "--inh-caps=-all", "--"]
        started = time.monotonic()
        env = {"TERM": "dumb", "NO_COLOR": "1"}
        done = self.host.run([*user, *argv] if self.user else argv, check=False, env=env, timeout_s=timeout_s)
        typed = Typed(shown or shlex.join(argv), done, time.monotonic() - started)
        self.typed.append(typed)
        return typed


def printed_command(check: Typed) -> str:
    """The command that a check has printed: the last line of its answer."""
    return check.finished.out.rstrip("\n").rpartition("\n")[2]


def remove_python(host: Host) -> None:
    """Take every package of Python from a host, as on an installation that never had one."""
    host.run(["sh", "-c", f"dpkg --purge --force-depends $({_PYTHON}) >/dev/null 2>&1; ! command -v python3"])
