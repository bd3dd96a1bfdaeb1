"""Cuts the power of a guest in the middle of changes: `python -m tests.prove.power_cuts CUTS [--seed N]`.

Owns a campaign for `make soak`: on a host that was installed from a bare one, upgrades and rollbacks are cut off at
random moments, by ending the virtual machine. After each cut the host must come up, and the old release or the new one
must answer. The same command once more must end well.

Exit code 0: no cut left anything in between; 1: one did, with the seed and the number of the cut.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.bed.guest import Guest
from tests.bed.guest_abilities import no_guests
from tests.bed.guest_bed import fresh_guest
from tests.bed.host import BedError, CommandError
from tests.prove.__main__ import write_line
from tests.prove.attempts import call_inside
from tests.prove.material import Material, prepare
from tests.prove.story import INSTALL_S, KEY_FILE, READY_S, URL, Story
from tests.prove.transcript import Transcript, UnprovenError

UNIT = "typed-by-a-person"
TOKENS = 2
LONGEST_S = {"install": 60.0, "rollback": 20.0}
"""A change takes about so long on an emulated processor; a cut after its end is a cut, too."""


class PowerCuts:
    """A campaign on one guest.

    Args:
        guest: fresh.
        material: what the connected side brings.
        choices: decides when each cut comes.
    """

    def __init__(self, guest: Guest, material: Material, choices: random.Random) -> None:
        self.guest, self.material, self.choices = guest, material, choices
        self.allowed = {material.manifest, material.newer_manifest}

    def run(self, cuts: int) -> None:
        """Install the first version, then cut upgrades and rollbacks off, by turns.

        Raises:
            UnprovenError: a cut left the host in between.
        """
        story = Story(self.guest, self.material, Transcript(lambda _: None))
        story.isolation()
        story.plugging()
        story.installing(story.checking())
        stick = self.guest.plug(self.material.newer)
        upgrade, back = ["appliance", "install", stick, "--yes"], ["appliance", "rollback"]
        for number in range(cuts):
            words = upgrade if number % 2 == 0 else back
            write_line(f"cut {number + 1}: {self.cut(words)}")
            self.finish(words)

    def cut(self, words: list[str]) -> str:
        """Cut the power while a command runs, start the host again, and require an answer; a line for people."""
        seconds = self.choices.uniform(0, LONGEST_S[words[1]])
        self.guest.run(["systemd-run", "--quiet", "--collect", f"--unit={UNIT}", *words])
        time.sleep(seconds)
        self.guest.kill()
        self.guest.boot()
        self.guest.mount(self.material.newer)
        return f"{words[1]} after {seconds:.1f} s, then {self.require_answer()[:12]} answers"

    def finish(self, words: list[str]) -> None:
        """The same command once more ends well, or has nothing to do."""
        done = self.guest.run(words, check=False, timeout_s=INSTALL_S)
        if done.code:
            raise UnprovenError(f"{words[1]} once more", "exit code 0", f"{done.code}: {done.err[-2000:]}")
        self.require_answer()

    def require_answer(self) -> str:
        """The manifest of the release that answers; it must be one of the two."""
        call_inside(self.guest, "await", URL, str(READY_S), timeout_s=READY_S + 60)
        answer = call_inside(self.guest, "ask", URL, KEY_FILE, "Name the capital of France.", str(TOKENS))
        release = str(answer["headers"].get("appliance-release", "")) if answer["status"] == 200 else ""
        if release.removeprefix("sha256:") not in self.allowed:
            raise UnprovenError("after a power cut the old or the new release answers", self.allowed, answer)
        status = self.guest.run(["appliance", "status"], check=False, timeout_s=READY_S)
        if status.code:
            raise UnprovenError("after a power cut everything is as it was signed", "exit code 0", status.out)
        return release.removeprefix("sha256:")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.prove.power_cuts", description="Power cuts in a guest.")
    parser.add_argument("cuts", type=int)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--workspace", type=Path, default=Path(".demo/workspace"))
    given = parser.parse_args()
    if reason := no_guests():
        print(f"error: {reason}", file=sys.stderr)
        return 1
    write_line(f"{given.cuts} power cuts, seed {given.seed}")
    try:
        with tempfile.TemporaryDirectory(prefix="cuts-") as name, fresh_guest() as guest:
            PowerCuts(guest, prepare(given.workspace, Path(name)), random.Random(given.seed)).run(given.cuts)
    except (UnprovenError, CommandError, BedError) as error:
        print(f"\nseed {given.seed}: {error}", file=sys.stderr)
        return 1
    write_line("0 states in between")
    return 0


if __name__ == "__main__":
    sys.exit(main())
