"""Killing a change of a host at a boundary of its steps, as a power cut would, and what must hold afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from appliance.host.change.change_file import REMOVING, RESTORING, SWITCHING, read_change
from appliance.host.change.rollback_program import rollback_program
from appliance.host.change.step_runner import OnBoundary
from appliance.host.layout.places import OK_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.release.release import current_target, open_current, open_release
from appliance.host.release.release_check import check_release
from tests.toy import NOW

Boundary = tuple[str, str]


def run_killed(work: Callable[[OnBoundary], object], boundaries: Sequence[Boundary], at: int) -> Boundary | None:
    """Run something in a child process that dies at a boundary, by SIGKILL.

    Args:
        work: gets the hook that it has to call.
        boundaries: a step's name, and `before` or `after`, in their order.
        at: the number of the first boundary to die at; where the work leaves out that step, it dies at the next one.

    Returns:
        Where it died; None where the work ended before.
    """

    def hook(step: str, when: str) -> None:
        number = boundaries.index((step, when))
        if number >= at:
            os.write(end, bytes([number]))
            os.kill(os.getpid(), signal.SIGKILL)

    read, end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(hook)
        except BaseException:  # noqa: BLE001 - what the work answers is not the question here
            os._exit(1)
        os._exit(0)
    os.close(end)
    os.waitpid(child, 0)
    with open(read, "rb") as file:
        died = file.read()
    return boundaries[died[0]] if died else None


def boot(prefix: Prefix) -> None:
    """What a boot does on a whole machine, before any service starts."""
    script = rollback_program(prefix)
    if script.is_file():
        subprocess.run(["/bin/sh", script, "--recover"], capture_output=True, check=True, timeout=60)


def check_tree(prefix: Prefix, served: set[str]) -> str:
    """Check that a host is between nothing: it serves one complete release, and every complete release is right.

    Args:
        prefix: the host, after `boot`.
        served: the versions of which one may serve; an empty text where it may be none.

    Returns:
        The version that serves; empty where none does.
    """
    change = read_change(prefix)
    assert change is None or change.phase not in (SWITCHING, REMOVING, RESTORING), change
    for release in sorted(prefix.releases.glob("*/")):
        if (release / OK_FILE).exists():
            check_release(open_release(prefix, release, NOW), models=False)
    if current_target(prefix) is None:
        assert "" in served, "nothing serves"
        return ""
    version = open_current(prefix, NOW).contents.version
    assert version in served
    return version


@contextmanager
def kept_tree(prefix: Prefix, keep: Path) -> Iterator[Callable[[], None]]:
    """Keep a copy of a host, and give a function that puts it back."""
    shutil.copytree(prefix.root, keep, symlinks=True)

    def put_back() -> None:
        shutil.rmtree(prefix.root, ignore_errors=True)
        shutil.copytree(keep, prefix.root, symlinks=True)

    yield put_back
    shutil.rmtree(keep)
