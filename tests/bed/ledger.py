"""The attempt ledger: runs a command where every attempt to reach a network is refused, counted and, if any, named.

    python -m tests.bed.ledger -- COMMAND ARGUMENT…

Works with and without root. The command's own output is left alone; the ledger speaks on stderr. When something was
counted, the command runs a second time under strace, to name the processes: give it a command that may run twice.

Exit codes: the command's own; 1 when it ended with 0 but tried to reach a network; 2 for a wrong call.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.bed.host import BedError, CommandError, Finished
from tests.bed.network import Attempts, Destination, Network

TRACE = [
    *["strace", "-f", "-qq", "-e", "signal=none", "-s", "0"],
    *["-e", "trace=execve,fork,vfork,clone,clone3,connect,sendto,sendmsg,sendmmsg"],
]
# 1234 execve("/usr/bin/python3", [...], 0x7ffd… /* 35 vars */) = 0
EXEC = re.compile(r'^(?P<pid>\d+) +execve\("(?P<path>[^"]+)".*(?:= 0|<unfinished \.\.\.>)$')
# 1234 clone(child_stack=NULL, …) = 1235, and "1234 <... clone resumed>, …) = 1235"
FORK = re.compile(r"^(?P<pid>\d+) +(?:<\.\.\. )?(?:v?fork|clone3?)\b.* = (?P<child>\d+)$")
# 1234 connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.1")}, 16) = …
CALL = re.compile(
    r"^(?P<pid>\d+) .*?_port=htons\((?P<port>\d+)\)"
    r'.*?(?:inet_addr\("(?P<ipv4>[^"]+)"|inet_pton\(AF_INET6, "(?P<ipv6>[^"]+)")'
)


class AttemptsError(AssertionError):
    """Something tried to reach a network."""


@dataclass(frozen=True, order=True)
class Culprit:
    """A process and an address that it tried to reach."""

    process: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.process} → {self.address} port {self.port}"


class Ledger:
    """A network for commands under test, and the count of what they tried.

    Raises:
        BedError: the machine refuses namespaces or nftables.
    """

    def __init__(self) -> None:
        self.network = Network()

    def command(self, argv: Sequence[str]) -> list[str]:
        """A command as it must be started to run under the ledger; the process started is the command itself."""
        return [*self.network.enter(), "--", *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 120,
    ) -> Finished:
        """Run a command under the ledger.

        Args:
            argv: the command; no shell is added.
            check: whether another code than 0 is an error.
            env: its whole environment; ours by default.
            cwd: its working folder; ours by default.
            timeout_s: it is killed then, and `subprocess.TimeoutExpired` raised.

        Raises:
            CommandError: the code is not 0, and `check` is on.
        """
        ended = subprocess.run(
            self.command(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=None if env is None else dict(env),
            cwd=cwd,
            timeout=timeout_s,
        )
        finished = Finished(ended.returncode, ended.stdout, ended.stderr)
        if check and finished.code != 0:
            raise CommandError(argv, finished)
        return finished

    def attempts(self) -> Attempts:
        """What was tried so far."""
        return self.network.attempts()

    def require_none(self) -> None:
        """Refuse any attempt.

        Raises:
            AttemptsError: there was one.
        """
        attempts = self.attempts()
        if attempts.total:
            raise AttemptsError(f"tried to reach a network: {attempts}")

    def close(self) -> None:
        """End what still runs in the network, and give it back. May be called twice."""
        self.network.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def culprits(argv: Sequence[str], destinations: Sequence[Destination]) -> list[Culprit]:
    """Run a command again, in a network of its own under strace, and name who tried to reach these destinations.

    A second run may try others (a random port, another address of one name): when none of those given is met, every
    address that it tried is told.
    """
    with tempfile.TemporaryDirectory(prefix="ledger-") as folder, Ledger() as ledger:
        log = Path(folder) / "strace"
        ledger.run([*TRACE, "-o", str(log), "--", *argv], check=False)
        calls = read_calls(log.read_text(errors="replace"))
    wanted = {(destination.address, destination.port) for destination in destinations}
    return [call for call in calls if (call.address, call.port) in wanted] or calls


def read_calls(text: str) -> list[Culprit]:
    """The addresses in a log of strace, each process and address once.

    A process is called by the program that it last started, or else its parent did: strace's own names (-Y) are at
    times those of a program before, as when a script starts the interpreter.
    """
    lines = text.splitlines()
    parents = {match["child"]: match["pid"] for match in map(FORK.match, lines) if match is not None}
    programs: dict[str, str] = {}
    found = set()
    for line in lines:
        if match := EXEC.match(line):
            programs[match["pid"]] = Path(match["path"]).name
        elif (match := CALL.match(line)) and match["port"] != "0":
            pid = match["pid"]
            while pid not in programs and pid in parents:
                pid = parents[pid]
            name = programs.get(pid, f"process {pid}")
            found.add(Culprit(name, match["ipv4"] or match["ipv6"], int(match["port"])))
    return sorted(found)


def main(arguments: Sequence[str]) -> int:
    """The command line: returns the exit code."""
    if len(arguments) < 2 or arguments[0] != "--":
        print("usage: python -m tests.bed.ledger -- COMMAND ARGUMENT…", file=sys.stderr)
        return 2
    argv = list(arguments[1:])
    try:
        with Ledger() as ledger:
            code = subprocess.run(ledger.command(argv)).returncode
            attempts = ledger.attempts()
        if attempts.total == 0:
            print("ledger: nothing tried to reach a network", file=sys.stderr)
            return code if code >= 0 else 128 - code
        print(f"ledger: tried to reach a network: {attempts}", file=sys.stderr)
        print("ledger: running it again under strace, to name who did", file=sys.stderr)
        for culprit in culprits(argv, attempts.destinations):
            print(f"  {culprit}", file=sys.stderr)
    except (BedError, FileNotFoundError) as error:
        print(f"error: the ledger cannot work here: {error}", file=sys.stderr)
        return 1
    return code if code > 0 else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
