"""Starting the programs that an install needs, each with nothing of the caller's environment.

Owns the environment and the logs of these programs, and waiting for them. Isolation belongs to
`appliance.host.process.isolation`.

Rules (threats T33, T34, T36):
- the environment is built from nothing: no proxy, no configuration and no secret of the caller reaches a child;
- a child inherits the install's lock, so that the next install waits for an orphan;
- output goes to a private log file; the error of a failed child holds its last lines.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from appliance.host.process.child import NETNS, Child, describe_exit, spawn
from bundles.medium import disk_full
from signing.errors import ApplyRestoredError

_TAIL_BYTES = 16 << 10
_NO_SPACE = ("No space left on device", "os error 28", "Errno 28", "Disk quota exceeded")


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """How a program ended: its exit code (128 + n after signal n), and the end of its output."""

    code: int
    output: str

    def reason(self) -> str:
        """Format one line for an error: the last lines of output, and how the program ended."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        end = describe_exit(self.code)
        return f"{' / '.join(lines[-3:])[-400:]} ({end})" if lines else end


@dataclass(slots=True)
class Programs:
    """Starts programs for one install.

    Args:
        scratch: a private folder on the prefix's file system; home, temporary files and logs of the children.
        lock: descriptor of the install's lock.
        isolation: `netns`, or `none` after a child had to run without a network namespace of its own.
    """

    scratch: Path
    lock: int
    isolation: str = field(default=NETNS, init=False)

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The whole environment of a child."""
        return {
            "HOME": str(self.scratch),
            "TMPDIR": str(self.scratch),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONNOUSERSITE": "1",
            **(extra or {}),
        }

    def start(
        self,
        command: Sequence[str | Path],
        name: str,
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        stdout: int | None = None,
        umask: int = 0o022,
        keep_capabilities: bool = False,
    ) -> Child:
        """Start a program.

        Args:
            command: the program by absolute path, and its arguments.
            name: of the log file, for people.
            cwd: its working directory.
            env: more variables.
            stdout: `subprocess.PIPE`, where the caller reads the output.
            umask: for the files that it creates.
            keep_capabilities: whether a program that root starts keeps root's capabilities.
        """
        log = self.scratch / f"{name}.log"
        log.unlink(missing_ok=True)
        child = spawn(
            command,
            cwd=cwd,
            env=self.environment(env),
            pass_fds=(self.lock,),
            log=log,
            stdout=stdout,
            umask=umask,
            keep_capabilities=keep_capabilities,
        )
        if child.isolation != NETNS:
            self.isolation = child.isolation
        return child

    def finish(self, child: Child, name: str, timeout_s: float) -> ProgramResult:
        """Wait for a program that `start` started under this name.

        Args:
            child: from `start`.
            name: as given there.
            timeout_s: the program is killed after this time, and its code is that of SIGKILL.

        Raises:
            ApplyRestoredError: the program failed because the disk is full.
        """
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = 128 + signal.SIGKILL
        finally:
            child.kill()
        done = ProgramResult(code, _tail(self.scratch / f"{name}.log"))
        if code != 0 and reports_full_disk(done.output):
            raise no_space(self.scratch, name)
        return done

    def run(
        self,
        command: Sequence[str | Path],
        name: str,
        *,
        cwd: Path,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
    ) -> ProgramResult:
        """Run a program to its end; the arguments are those of `start` and `finish`."""
        return self.finish(self.start(command, name, cwd=cwd, env=env), name, timeout_s)


def reports_full_disk(output: str) -> bool:
    """Whether the output of a program reports a full disk."""
    return any(mark in output for mark in _NO_SPACE)


def no_space(where: Path, what: str) -> ApplyRestoredError:
    """The error for a disk that filled up during an install: what serves is unchanged, and the next run goes on."""
    error = disk_full(where / what, 0)
    return ApplyRestoredError(
        "disk.full",
        str(where),
        expected=f"room to finish {what}",
        found=error.found,
        hint="free some space there and run the same command again; it goes on where it stopped",
    )


def _tail(log: Path) -> str:
    try:
        # The child could write to this folder: opening what lies there now must neither follow a link nor block.
        descriptor = os.open(log, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - _TAIL_BYTES))
            return stream.read(_TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
