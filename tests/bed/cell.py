"""A process that holds Linux namespaces for as long as the process that made it lives.

Owns how namespaces are made, entered and given back. It never gives a namespace a name: what has no name cannot be
left behind.

Rules:

- The holder waits for the end of its standard input. When its maker ends, however it ends, the kernel closes the pipe.
- With a process namespace the holder is its process 1: when it ends, the kernel ends every other process in it.
- Mounts are made in the holder's own mount namespace and vanish with it.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.bed.host import BedError

READY = "ready"
NAMES = {"net": "net", "mount": "mnt", "pid": "pid"}
# A user's own path may lack the folders where ip and nft lie.
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
END_S = 20


class Cell:
    """Namespaces with a holder.

    Args:
        kinds: of `net`, `mount` and `pid`. Without root a user namespace is added, in which the caller is root.
        prepare: shell lines that run inside before the cell is ready; `set -e` holds.
        finish: shell lines that run inside when the cell ends.

    Raises:
        BedError: the machine refuses a namespace, or `prepare` failed.
    """

    def __init__(self, kinds: Sequence[str], *, prepare: str = "", finish: str = "") -> None:
        self.kinds = tuple(kinds)
        self._with_user = os.geteuid() != 0
        script = f"set -e\n{prepare}\necho {READY}\nset +e\nread -r _\n{finish}\n"
        with tempfile.TemporaryFile("w+") as errors:
            self._holder = subprocess.Popen(
                [*self._unshare(), "sh", "-c", script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "PATH": PATH},
                start_new_session=True,  # Ctrl-C is for the tests; they end the cell themselves
            )
            assert self._holder.stdout is not None
            said = self._holder.stdout.readline().strip()
            if said != READY:
                self.close()
                errors.seek(0)
                raise BedError(f"no namespaces ({' '.join(self.kinds)}): {errors.read().strip() or said}")
        self.pid = _only_child(self._holder.pid) if "pid" in self.kinds else self._holder.pid
        self.namespaces = frozenset(os.readlink(f"/proc/{self.pid}/ns/{NAMES[kind]}") for kind in self.kinds)
        """The kernel's names of the namespaces, such as `net:[4026532000]`; after `close` others may get them."""

    def _unshare(self) -> list[str]:
        options = ["unshare"]
        if self._with_user:
            options += ["--user", "--map-root-user"]
        if "net" in self.kinds:
            options += ["--net"]
        if "mount" in self.kinds:
            options += ["--mount", "--propagation", "private"]
        if "pid" in self.kinds:
            options += ["--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"]
        return options

    def enter(self) -> list[str]:
        """The words to put before a command that shall run inside.

        Without a process namespace the command replaces the first word's process, so that a signal to it arrives.
        """
        options = ["nsenter", f"--target={self.pid}"]
        if self._with_user:
            options += ["--user", "--preserve-credentials"]
        return options + [f"--{kind}" for kind in self.kinds]

    def path(self, inside: Path) -> Path:
        """A path of the cell's mount namespace, as seen from outside."""
        return Path(f"/proc/{self.pid}/root") / inside.relative_to("/")

    def close(self) -> None:
        """End the holder, and with a process namespace everything inside. May be called twice."""
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        try:
            self._holder.wait(END_S)
        except subprocess.TimeoutExpired:
            self._holder.kill()
            self._holder.wait()
        self._holder.stdout.close()

    def __enter__(self) -> Cell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def children(pid: int) -> list[int]:
    """The children of a process, in the order of their making; none when it is gone."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _only_child(pid: int) -> int:
    found = children(pid)
    if len(found) != 1:
        raise BedError(f"the holder {pid} has {len(found)} children, expected 1")
    return found[0]


def processes_in(namespaces: frozenset[str]) -> list[int]:
    """The processes that live in one of these namespaces."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            kinds = [os.readlink(entry / "ns" / kind) for kind in ("net", "mnt", "pid")]
        except OSError:
            continue
        if namespaces.intersection(kinds):
            found.append(int(entry.name))
    return found
