"""One long child process whose output is read line by line, and which never outlives its purpose.

Owns how cmake and ninja are run. It must never pass the builder's environment on.

Rules:
- the child is a session of its own and gets SIGINT when this process dies, even by SIGKILL: ninja then ends its
  compilers and removes what they had half written;
- the child and all its children hold the lock's descriptor, so the lock is free only when the last of them is gone;
- every line goes to the log; the caller sees each once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_GRACE_S = 20.0
# PR_SET_PDEATHSIG is 1. It counts from the call on, so a parent that is already gone is noticed by its changed id.
_TRAMPOLINE = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[1]))
os.getppid() == int(sys.argv[2]) or sys.exit(1)
os.execv(sys.argv[3], sys.argv[3:])
"""


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
        environment: all that it sees.
        log: its output is added here.
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
