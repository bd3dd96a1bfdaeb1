"""The demo's hands: real commands in child processes, shown as a person would type them.

Owns starting, watching and ending the children. Nothing of the demo calls the program's functions directly: what is
shown here is what anybody can type.

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
READY_S = 180.0
STOP_S = 20.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Finished:
    """How a command ended: what it answered, what it said (only where that was caught), and its exit code."""

    line: str
    code: int
    answer: str
    talk: str


@dataclass(frozen=True)
class Served:
    """A running `appliance serve`: where it listens, its key, and its release."""

    url: str
    key: str
    release: str


class Commands:
    """Runs `appliance …` and shows the line, the talk and the answer.

    Args:
        terminal: where everything is shown.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def run(self, *arguments: str | Path, show_answer: bool = True) -> Finished:
        """Run a command that must succeed. Its talk goes straight to the person, its answer is caught and shown."""
        line = self._show(arguments)
        child = _start(arguments, stderr=None)
        finished = Finished(line, *_wait(child))
        if show_answer:
            self._indent(finished.answer)
        if finished.code != 0:
            self._terminal.failure(f"{line} ended with exit code {finished.code}, the demo needs 0")
            raise SystemExit(finished.code)
        return finished

    def ask(self, *arguments: str | Path) -> Any:
        """Run a command that answers in JSON, and return the value."""
        return json.loads(self.run(*arguments, "--json", show_answer=False).answer)

    def refused(self, *arguments: str | Path, code: int, naming: str) -> Finished:
        """Run a command that must refuse.

        Args:
            arguments: the command.
            code: the exit code that it must end with.
            naming: what its talk must hold.

        Raises:
            ApplianceError: it did something else.
        """
        line = self._show(arguments)
        child = _start(arguments, stderr=subprocess.PIPE)
        finished = Finished(line, *_wait(child))
        self._indent(finished.answer + finished.talk)
        self._terminal.say(f"  exit code {finished.code}")
        if finished.code != code:
            raise _unexpected(line, f"a refusal with exit code {code}", f"exit code {finished.code}")
        if naming not in finished.talk:
            raise _unexpected(line, f"an error that names {naming}", finished.talk.strip()[:200])
        return finished

    @contextmanager
    def serving(self, log: Path, *arguments: str | Path) -> Iterator[Served]:
        """Run `appliance serve` for as long as the block lasts.

        Args:
            log: takes what it says meanwhile.
            arguments: the command.

        Raises:
            ApplianceError: it did not get ready.
        """
        line = self._show(arguments)
        with log.open("wb") as talk:
            child = _start(arguments, stderr=talk.fileno())
            try:
                ready = _first_line(child)
                if ready is None:
                    self._indent(log.read_text(errors="replace")[-4000:])
                    raise _unexpected(line, "one JSON line when it is ready", f"none; see {log}")
                self._indent(ready)
                value = json.loads(ready)
                yield Served(value["url"], Path(value["key_file"]).read_text().strip(), value["release"])
            finally:
                _stop(child)

    def _show(self, arguments: tuple[str | Path, ...]) -> str:
        line = shlex.join(["appliance", *map(str, arguments)])
        self._terminal.say(f"  $ {line}", style="bold")
        return line

    def _indent(self, text: str) -> None:
        for line in text.rstrip().splitlines():
            self._terminal.say(f"    {line}")


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
        answer, talk = child.communicate()
    except BaseException:
        _stop(child)
        raise
    code = child.returncode
    return (code if code >= 0 else 128 - code), answer, talk or ""


def _first_line(child: subprocess.Popen[str]) -> str | None:
    """Wait for the first line of the child's answer; None where it ended or took too long."""
    assert child.stdout is not None
    deadline = time.monotonic() + READY_S
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            if selector.select(timeout=1.0):
                return child.stdout.readline() or None
    return None


def _stop(child: subprocess.Popen[str]) -> None:
    """End a child politely, then firmly; its pipes are closed."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_S)
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
