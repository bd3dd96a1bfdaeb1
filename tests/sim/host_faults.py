"""A campaign of faults against the changes of a host: a kill, a full disk, a disk that fails, and a clock that jumps.

Command line: `python -m tests.sim.host_faults COUNT [SEED]`. It prints its seed, and every fault after which a host was
in between. Each fault strikes one random call of the operating system in one random change.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.host.change.change_file import SWITCHING, read_change
from appliance.host.install import steps
from appliance.host.install import switching as switching_module
from appliance.host.install.commit import commit_release
from appliance.host.install.switching import switch_release
from appliance.host.layout.places import OK_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.release.release import current_target
from signing.errors import ApplianceError
from tests.appliance.sim_host import build_bundle
from tests.appliance.sim_site import new_site
from tests.sim.kills import boot, check_tree, kept_tree
from tests.toy import NOW

KINDS = ("kill", "ENOSPC", "EIO", "clock")
CALLS = (
    "open",
    "write",
    "fsync",
    "rename",
    "replace",
    "unlink",
    "mkdir",
    "symlink",
    "link",
    "chmod",
    "fchmod",
    "rmdir",
)
"""The calls of the operating system that a fault may strike."""
_JUMPS = (timedelta(days=-3000), timedelta(days=4000), timedelta(hours=-5))
_FULL_CHECK_EVERY = 50
SWITCH, COMMIT = "switch", "switch and commit"


@dataclass(frozen=True)
class Fault:
    """One fault: its kind, the number of the call that it strikes, and the change that runs then."""

    kind: str
    call: int
    change: str


class FaultHost:
    """A host that serves one release and has a newer one staged."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.site = new_site(folder, patch)
        self.site.install()
        self.site.install(build_bundle(self.site.sim.workspace, "1.1.0", "two"), is_staging=True)
        for module, name in ((switching_module, "check_staged"), (steps, "check_release")):
            patch.setattr(module, name, lambda *_, **__: None)  # they read only, and take most of the time

    @property
    def prefix(self) -> Prefix:
        return self.site.sim.prefix

    def run(self, change: str, now: Callable[[], object]) -> None:
        machine = replace(self.site.machine, now=now)  # type: ignore[arg-type]
        release = switch_release(None, machine).release
        record = read_change(self.prefix)
        if change == COMMIT and record is not None:
            commit_release(release, record, self.site.services, machine.now)

    def struck(self, fault: Fault) -> int:
        """Run a change in a child process that the fault strikes; returns the status of its end."""
        child = os.fork()
        if child == 0:
            _strike(fault, self)
            try:
                self.run(fault.change, _clock(fault))
            except BaseException:  # noqa: BLE001 - what the change answers is not the question here
                os._exit(1)
            os._exit(0)
        return os.waitpid(child, 0)[1]

    def count_calls(self) -> int:
        """How many calls the longest change makes."""
        read, end = os.pipe()
        child = os.fork()
        if child == 0:
            _strike(Fault("none", 0, COMMIT), self)
            with suppress(ApplianceError):
                self.run(COMMIT, _clock(Fault("none", 0, "")))
            os.write(end, str(_counted[0]).encode())
            os._exit(0)
        os.close(end)
        os.waitpid(child, 0)
        with open(read, "rb") as file:
            return int(file.read())

    def fault_of(self) -> str:
        """What is in between; empty where nothing is."""
        target, change = current_target(self.prefix), read_change(self.prefix)
        if change is not None and change.phase == SWITCHING:
            return f"unfinished: {change}"
        if target is None or not (self.prefix.opt / target / OK_FILE).is_file():
            return f"current names {target}"
        if change is not None and target != f"releases/{change.release}":
            return f"{change.release} is on trial, and {target} serves"
        return ""


_counted = [0]


def _clock(fault: Fault) -> Callable[[], object]:
    jump = _JUMPS[fault.call % len(_JUMPS)]
    return lambda: NOW + jump if fault.kind == "clock" and _counted[0] >= fault.call else NOW


def _strike(fault: Fault, host: FaultHost) -> None:
    """Have the calls of this process counted, and one of them struck."""
    _counted[0] = 0

    def counting(name: str) -> Callable[..., object]:
        real = getattr(os, name)

        def call(*arguments: object, **options: object) -> object:
            _counted[0] += 1
            if _counted[0] == fault.call:
                if fault.kind == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if fault.kind in ("ENOSPC", "EIO"):
                    raise OSError(getattr(errno, fault.kind), "struck", str(host.prefix.root))
            return real(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, counting(name))


def run_campaign(
    host: FaultHost, folder: Path, count: int, seed: int, restart: Callable[[Prefix], None] = boot
) -> list[str]:
    """Strike a host with faults, each from the same begin.

    Args:
        host: the host.
        folder: for its copy.
        count: how many faults.
        seed: of the random choices.
        restart: what the machine does after each fault.

    Returns:
        Every fault after which the host was in between.
    """
    chance, bad = random.Random(seed), []
    with kept_tree(host.prefix, folder / "kept") as put_back:
        calls = host.count_calls()
        put_back()
        for number in range(count):
            fault = Fault(chance.choice(KINDS), chance.randrange(1, calls), chance.choice((SWITCH, COMMIT)))
            host.struck(fault)
            try:
                restart(host.prefix)
                found = host.fault_of()
                if not found and number % _FULL_CHECK_EVERY == 0:
                    check_tree(host.prefix, {"1.0.0", "1.1.0"})
            except Exception as error:  # noqa: BLE001 - it is reported with its fault
                found = f"{type(error).__name__}: {error}"
            if found:
                bad.append(f"seed {seed}, number {number}, {fault}: {found}")
            put_back()
    return bad


def main(arguments: list[str]) -> int:
    """Run a campaign, and print its seed and what it found."""
    count = int(arguments[0]) if arguments else 200
    seed = int(arguments[1]) if len(arguments) > 1 else random.SystemRandom().randrange(1 << 32)
    sys.stdout.write(f"{count} faults, seed {seed}\n")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        (Path(folder) / "host").mkdir()
        bad = run_campaign(FaultHost(Path(folder) / "host", patch), Path(folder), count, seed)
    sys.stdout.write("".join(f"{line}\n" for line in bad) + f"{len(bad)} hosts in between\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
