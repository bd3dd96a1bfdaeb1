"""A long child process whose output is read line by line, and which does not outlive its caller.

Owns how cmake, ninja, the converter and llama-quantize are run. It must never pass on the builder's environment.

Rules:
- the child has a session of its own and gets SIGINT when this process dies, even by SIGKILL;
- on SIGINT, ninja ends its compilers and removes their incomplete files;
- the child and all its children hold the lock's descriptor, so the lock is free only when the last of them has ended;
- every line goes to the log, and once to the caller.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_GRACE_S = 20.0
_LAST_LINES = 6
_LINE_LENGTH = 240
# PR_SET_PDEATHSIG is 1. It works from the call on: a parent that died before is noticed by the changed parent id.
_TRAMPOLINE = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[1]))
os.getppid() == int(sys.argv[2]) or sys.exit(1)
os.execv(sys.argv[3], sys.argv[3:])
"""


class LastLines:
    """The last lines of a program's output, for the error that its failure becomes."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def on_line(self, line: str) -> None:
        """Take one line, without its end; empty lines are left out."""
        if line.strip():
            self._lines = [*self._lines[1 - _LAST_LINES :], line.strip()[:_LINE_LENGTH]]

    def describe(self, status: int) -> str:
        """The lines, and how the program ended.

        Args:
            status: of `run`.
        """
        end = f"exit status {status}" if status > 0 else f"ended by signal {-status}"
        return "\n".join([*self._lines, end])


def run(
    argv: list[str],
    *,
    environment: dict[str, str],
    log: Path,
    hold: int | None = None,
    on_line: Callable[[str], None],
) -> int:
    """Run a program to its end.

    Args:
        argv: the program as an absolute path, and its arguments.
        environment: all of its environment.
        log: its output is appended here.
        hold: a descriptor that it and its children keep open, or None.
        on_line: called with each line of its output, without the line's end.

    Returns:
        Its exit status; negative where a signal ended it.
    """
    trampoline = [sys.executable, "-I", "-S", "-c", _TRAMPOLINE, str(int(signal.SIGINT)), str(os.getpid())]
    with log.open("ab", buffering=0) as written:
        child = subprocess.Popen(
            [*trampoline, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=() if hold is None else (hold,),
            start_new_session=True,
        )
        try:
            assert child.stdout is not None
            for line in child.stdout:
                written.write(line)
                on_line(line.decode("utf-8", "replace").rstrip())
            return child.wait()
        finally:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if child.stdout is not None:
        child.stdout.close()
