"""What every kind of test host can do, so that one scenario runs on any of them.

Rules:

- A host is fresh: two hosts of one tree differ in nothing but their name.
- `kill` is a crash of the host's processes. Only the guest may call it a power cut: there the page cache is lost too.
- A host that was closed leaves no process, mount, namespace, control group or temporary tree behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class BedError(RuntimeError):
    """The bed itself failed: nothing is said about what was to be tested."""


class CommandError(AssertionError):
    """A command on a host ended with another code than 0."""

    def __init__(self, argv: Sequence[str], finished: Finished) -> None:
        super().__init__(f"{list(argv)} ended with {finished.code}\n{finished.out}{finished.err}")
        self.finished = finished


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str


class Stick(Protocol):
    """What can be plugged into a host."""

    @property
    def name(self) -> str:
        """A word that names the stick among those plugged."""

    @property
    def folder(self) -> Path:
        """The stick's files, for a bed that has no USB."""

    @property
    def is_read_only(self) -> bool:
        """True for a stick whose write protection is on."""


@dataclass(frozen=True)
class FolderStick:
    """A stick made of a folder. Every bed can plug it."""

    name: str
    folder: Path
    is_read_only: bool = False


class Host(Protocol):
    """A machine under test."""

    @property
    def name(self) -> str:
        """The host's name in messages."""

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 120,
    ) -> Finished:
        """Run a command as root in /root with a small fixed environment.

        Args:
            argv: the command; no shell is added.
            check: whether another code than 0 is an error.
            env: added to the environment.
            timeout_s: the command is killed then, and `subprocess.TimeoutExpired` raised.

        Raises:
            CommandError: the code is not 0, and `check` is on.
            BedError: the host does not run.
        """

    def put(self, local: Path, remote: str) -> None:
        """Copy a file or a folder onto the host, modes kept, owner root. Missing folders are made."""

    def get(self, remote: str, local: Path) -> None:
        """Copy a file or a folder from the host."""

    def plug(self, stick: Stick) -> str:
        """Plug a stick and mount it as an operator does (nosuid, nodev, noexec).

        Returns:
            The folder on the host where its files appear.
        """

    def yank(self) -> None:
        """Pull every stick without unmounting."""

    def kill(self) -> None:
        """End the host at this instant. Its disk stays."""

    def boot(self) -> None:
        """Start a host that does not run, and return when its services are up. The disk is what it was."""

    def stop(self) -> None:
        """Shut the host down in order. Its disk stays: `stop` and `boot` are a reboot."""

    def files(self) -> dict[str, str]:
        """Each path on the host's disk with type, mode, owner and content digest, without those of volatile.txt."""

    def close(self) -> None:
        """End the host and forget its disk. May be called twice."""
