"""Proves the whole story in a virtual machine without a network card: `python -m tests.prove [--workspace DIR]`.

Prints a transcript with digests, times and counts of attempts to reach a network. Exit code 0: every step was proven;
1: one was not, and what was found instead stands at the end; 2: the command line is wrong.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bed.guest_abilities import no_guests
from tests.bed.guest_bed import fresh_guest
from tests.bed.guest_machine import default_machine, qemu_version
from tests.bed.host import BedError, CommandError
from tests.prove.material import prepare
from tests.prove.story import Story
from tests.prove.transcript import Transcript, UnprovenError


def write_line(text: str) -> None:
    """Print one line of the transcript, at once."""
    print(text, flush=True)


def prove(workspace: Path) -> None:
    """Prepare the stick, start a fresh guest, and run every step on it.

    Args:
        workspace: holds the bundle.

    Raises:
        UnprovenError, CommandError: a step was not proven.
        BedError: the bed itself failed.
    """
    if reason := no_guests():
        raise BedError(reason)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="prove-") as name:
        material = prepare(workspace, Path(name))
        write_line(f"bundle    {material.bundle}  manifest sha256:{material.manifest}")
        write_line(f"model     {material.model.name}  sha256:{material.file.sha256}")
        write_line(f"on paper  root key {material.fingerprint}")
        machine = default_machine()
        write_line(
            f"host      {qemu_version()}, {machine.accelerator}, {machine.cpus} processors {machine.cpu}, -nic none"
        )
        transcript = Transcript(write_line)
        with fresh_guest() as guest:
            Story(guest, material, transcript).run()
        transcript.summary()
    write_line(f"\nproven in {time.monotonic() - started:.0f} s")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.prove", description="The whole story, on a host of its own.")
    parser.add_argument("--workspace", type=Path, default=Path(".demo/workspace"), help="holds the bundle in dist/")
    arguments = parser.parse_args()
    # So that the guest and the stick end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        prove(arguments.workspace)
    except (UnprovenError, CommandError, subprocess.TimeoutExpired) as error:
        print(f"\nnot proven: {error}", file=sys.stderr)
        return 1
    except BedError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
