"""The commands of the demo: real ones in child processes, shown as a person would type them.

Owns starting, watching and ending the children. No step calls the program's functions directly, so everybody can
repeat what is shown.

Rules:
- a child that ends otherwise than expected ends the demo, with the child's own exit code;
- no child outlives the demo, however that ends.
"""

from __future__ import annotations

import ctypes
import json
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.cli.console.terminal import Terminal
from signing.errors import ApplianceError

PROGRAM = (sys.executable, "-m", "appliance.cli.main")
READY_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 20.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Finished:
    """How a command ended: its line, its exit code, its answer, and its messages where they were captured."""

    line: str
    code: int
    answer: str
    messages: str


@dataclass(frozen=True)
class RunningServer:
    """A running `appliance serve`: where it listens, its key, and its release."""

    url: str
    key: str
    release: str


class Commands:
    """Runs `appliance …` and shows the line, the messages and the answer.

    Args:
        terminal: where everything is shown.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def run(self, *arguments: str | Path, show_answer: bool = True) -> Finished:
        """Run a command that must succeed. Its messages go to the person directly; its answer is captured and shown."""
        line = self._show(arguments)
        child = _start(arguments, stderr=None)
        finished = Finished(line, *_wait(child))
        if show_answer:
            self._indent(finished.answer)
        if finished.code != 0:
            self._terminal.failure(f"{line} ended with exit code {finished.code}, the demo needs 0")
            raise SystemExit(finished.code)
        return finished

    def query(self, *arguments: str | Path) -> Any:
        """Run a command that answers in JSON, and return the value."""
        return json.loads(self.run(*arguments, "--json", show_answer=False).answer)

    def refused(self, *arguments: str | Path, code: int, naming: str) -> Finished:
        """Run a command that must refuse.

        Args:
            arguments: the command.
            code: the exit code that it must end with.
            naming: what its messages must contain.

        Raises:
            ApplianceError: it did something else.
        """
        line = self._show(arguments)
        child = _start(arguments, stderr=subprocess.PIPE)
        finished = Finished(line, *_wait(child))
        self._indent(finished.answer + finished.messages)
        self._terminal.message(f"  exit code {finished.code}")
        if finished.code != code:
            raise _unexpected(line, f"a refusal with exit code {code}", f"exit code {finished.code}")
        if naming not in finished.messages:
            raise _unexpected(line, f"an error that names {naming}", finished.messages.strip()[:200])
        return finished

    @contextmanager
    def serving(self, log: Path, *arguments: str | Path) -> Iterator[RunningServer]:
        """Run `appliance serve` for as long as the block lasts.

        Args:
            log: receives its messages.
            arguments: the command.

        Raises:
            ApplianceError: it did not get ready.
        """
        line = self._show(arguments)
        with log.open("wb") as messages:
            child = _start(arguments, stderr=messages.fileno())
            try:
                ready = _first_line(child)
                if ready is None:
                    self._indent(log.read_text(errors="replace")[-4000:])
                    raise _unexpected(line, "one JSON line when it is ready", f"none; see {log}")
                self._indent(ready)
                value = json.loads(ready)
                yield RunningServer(value["url"], Path(value["key_file"]).read_text().strip(), value["release"])
            finally:
                _stop(child)

    def _show(self, arguments: tuple[str | Path, ...]) -> str:
        line = shlex.join(["appliance", *map(str, arguments)])
        self._terminal.message(f"  $ {line}", style="bold")
        return line

    def _indent(self, text: str) -> None:
        for line in text.rstrip().splitlines():
            self._terminal.message(f"    {line}")


def _start(arguments: tuple[str | Path, ...], stderr: int | None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        errors="backslashreplace",
        preexec_fn=_end_with_parent,  # noqa: PLW1509 - the demo has one thread, and the call takes no lock
    )


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _wait(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        answer, messages = child.communicate()
    except BaseException:
        _stop(child)
        raise
    code = child.returncode
    return (code if code >= 0 else 128 - code), answer, messages or ""


def _first_line(child: subprocess.Popen[str]) -> str | None:
    """Wait for the first line of the child's standard output; None where it ended or took too long."""
    assert child.stdout is not None
    deadline = time.monotonic() + READY_TIMEOUT_S
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            if selector.select(timeout=1.0):
                return child.stdout.readline() or None
    return None


def _stop(child: subprocess.Popen[str]) -> None:
    """End a child with SIGTERM, and with SIGKILL where that takes too long; its pipes are closed."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()


def _unexpected(line: str, expected: str, found: str) -> ApplianceError:
    return ApplianceError(
        "demo.unexpected", line, expected=expected, found=found, hint="run the line above by itself to see more"
    )
