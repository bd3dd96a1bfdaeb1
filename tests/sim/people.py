"""People with keys of their own, and the requests that go round among them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance.keys.ceremony import begin, collect, sign
from appliance.keys.signature_requests.request import Request, read_request, write_request
from appliance.keys.signers.signer import Signer
from appliance.keys.workspace import Workspace
from tests.sim.tuf import Keys, keys
from tests.toy import NOW

ROOT, TARGETS = keys("person-root", 3), keys("person-targets", 3)


@dataclass
class Ceremony:
    """A workspace of several people, and what they do.

    Args:
        workspace: the builder's.
        mail: a folder in which copies of requests travel.
    """

    workspace: Workspace
    mail: Path

    def waiting(self, label: str) -> Path:
        """The workspace's own request file."""
        return self.workspace.requests / f"{label}.json"

    def signed_by(self, label: str, signers: tuple[Signer, ...]) -> list[Path]:
        """One copy of a request for each signer, signed on their own machines."""
        copies = []
        for number, signer in enumerate(signers):
            data = self.waiting(label).read_bytes()
            copy = self.mail / f"{label}-{number}.json"
            copy.write_bytes(write_request(sign(read_request(data, copy.name), signer)))
            copies.append(copy)
        return copies

    def collect(self, label: str, signers: tuple[Signer, ...], now: datetime = NOW) -> Request:
        """Let people sign, and bring what they signed together."""
        return collect(self.workspace, self.signed_by(label, signers), now)


def start(folder: Path, root: Keys = ROOT, targets: Keys = TARGETS, threshold: int = 2) -> Ceremony:
    """A new workspace whose root waits for signatures."""
    people = [([key.public for key in holders], threshold) for holders in (root, targets)]
    workspace, _ = begin(folder / "workspace", people[0], people[1], NOW)
    (folder / "mail").mkdir()
    return Ceremony(workspace, folder / "mail")


def copied(folder: Path, to: Path) -> Ceremony:
    """A copy of a folder that `start` or `finished` filled.

    Args:
        folder: the same as there.
        to: does not exist yet.
    """
    shutil.copytree(folder, to)
    return Ceremony(Workspace(to / "workspace"), to / "mail")


def finished(folder: Path) -> Ceremony:
    """A workspace whose root two of three people have signed."""
    made = start(folder)
    assert made.collect("root-1", (*ROOT[:2], *TARGETS[:2])).is_complete
    return made
