"""Child processes: isolated from every network, with nothing but what the caller names, and never left behind.

Owns how the appliance starts another program. It must never pass on its own environment, descriptors or terminal.

Rules:
- the program gets exactly the environment and the descriptors that the caller names, and /dev/null as its input;
- an isolated child cannot reach any network (docs/architecture.md, The host). Where the machine refuses that, the child
  runs in the host's network, and `isolation` is `none`. The caller decides whether that is acceptable;
- children end when this process ends, however it ends; see `appliance.host.process.isolation`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from appliance.host.process import isolation as launcher
from signing.errors import ApplianceError

NETNS, NONE = "netns", "none"
"""The two values of `Child.isolation`: no network at all, or that of the host."""

STOP_S = 10.0


class Child:
    """A running program, and the launcher that watches it and forwards signals to it.

    Args:
        process: the launcher.
        isolation: `NETNS` or `NONE`.
        lifeline: one end of a pipe; when it is closed, the program is killed.
    """

    def __init__(self, process: subprocess.Popen[bytes], isolation: str, lifeline: int) -> None:
        self.process = process
        self.isolation = isolation
        self._lifeline = lifeline

    @property
    def stdout(self) -> IO[bytes] | None:
        """The program's standard output, where the caller asked for a pipe."""
        return self.process.stdout

    @property
    def program_pid(self) -> int | None:
        """The process id of the program itself; None when it has ended or the kernel does not show it."""
        process = self.process.pid
        # Below the launcher comes the first process of the namespace, where there is one, and below that the program.
        for _ in range(2 if self.isolation == NETNS else 1):
            try:
                process = int(Path(f"/proc/{process}/task/{process}/children").read_text("ascii").split()[0])
            except (OSError, IndexError):
                return None
        return process

    def poll(self) -> int | None:
        """Read the exit status, 128 + n after signal n; None while the program runs."""
        code = self.process.poll()
        if code is not None:
            self._release()
        return code if code is None or code >= 0 else 128 - code

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the end.

        Returns:
            The exit status, as `poll`.

        Raises:
            subprocess.TimeoutExpired: the program still runs.
        """
        self.process.wait(timeout_s)
        code = self.poll()
        assert code is not None  # wait has returned
        return code

    def stop(self, grace_s: float = STOP_S) -> int:
        """End the program by SIGTERM, and after `grace_s` seconds by SIGKILL. Safe to call twice.

        Returns:
            The exit status, as `poll`.
        """
        if self.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.terminate()
                return self.wait(grace_s)
            self.kill()
        return self.wait()

    def kill(self) -> None:
        """Kill the program and everything that it started."""
        # The launcher kills when the lifeline closes. To kill the launcher suffices only where there is a namespace.
        self._release()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
            return
        self.process.kill()

    def _release(self) -> None:
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


def spawn(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str],
    pass_fds: Sequence[int] = (),
    log: Path | int | None = None,
    stdout: int | None = None,
    isolated: bool = True,
    keep_capabilities: bool = False,
    umask: int = 0o077,
    stack_bytes: int | None = None,
) -> Child:
    """Start a program.

    Args:
        argv: the program's absolute path, then its arguments.
        cwd: its working directory.
        env: its whole environment.
        pass_fds: descriptors that it gets under the same numbers; the caller closes its own copies.
        log: a file to which its output is appended (created with mode 0600), or a descriptor; None drops the output.
        stdout: `subprocess.PIPE` or a descriptor for its standard output; None sends that to the log, too.
        isolated: whether to start it without any network; `Child.isolation` shows whether the machine allowed it.
        keep_capabilities: whether a program that root starts keeps root's capabilities.
        umask: for the files that it creates.
        stack_bytes: of each of its threads; None leaves it as it is.

    Returns:
        The child; its program has been loaded.

    Raises:
        ApplianceError: the program cannot be started.
    """
    output = _open_log(log)
    try:
        flags = ["isolate"] * isolated + ["keep-capabilities"] * keep_capabilities
        if stack_bytes is not None:
            flags.append(f"stack={stack_bytes}")
        child, words = _launch(argv, flags, umask, cwd, env, pass_fds, output, stdout)
        if words[:1] == ["refused"]:
            child.kill()
            flags.remove("isolate")
            child, words = _launch(argv, flags, umask, cwd, env, pass_fds, output, stdout)
    finally:
        os.close(output)
    if words[:1] not in (["isolated"], ["open"]) or "failed" in words:
        child.kill()
        raise ApplianceError(
            "process.not-started",
            str(argv[0]),
            expected="a program that this machine can start",
            found=" ".join(words[words.index("failed") + 1 :]) if "failed" in words else "no status from the launcher",
            hint="run `appliance verify` on what is installed",
        )
    return child


def describe_exit(code: int) -> str:
    """Format an exit status for people, for example `exit status 132 (SIGILL)`."""
    name = ""
    with contextlib.suppress(ValueError):
        name = f" ({signal.Signals(code - 128).name})" if code > 128 else ""
    return f"exit status {code}{name}"


def _launch(
    argv: Sequence[str | Path],
    flags: list[str],
    umask: int,
    cwd: Path,
    env: Mapping[str, str],
    pass_fds: Sequence[int],
    output: int,
    stdout: int | None,
) -> tuple[Child, list[str]]:
    watched, lifeline = os.pipe()
    status_read, status_write = os.pipe()
    command = [sys.executable, "-I", "-S", "-B", launcher.__file__, str(watched), str(status_write), f"{umask:o}"]
    try:
        process = subprocess.Popen(
            [*command, ",".join(flags) or "-", *map(str, argv)],
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output if stdout is None else stdout,
            stderr=output,
            pass_fds=(watched, status_write, *pass_fds),
            start_new_session=True,
        )
    except BaseException:
        os.close(lifeline)
        os.close(status_read)
        raise
    finally:
        os.close(watched)
        os.close(status_write)
    with open(status_read, "rb") as status:
        words = status.read().decode("utf-8", "replace").split()
    return Child(process, NETNS if words[:1] == ["isolated"] else NONE, lifeline), words


def _open_log(log: Path | int | None) -> int:
    if isinstance(log, int):
        return os.dup(log)
    if log is None:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
