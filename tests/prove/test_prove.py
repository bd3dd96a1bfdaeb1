"""The proof itself is proven: an attempt to reach a network, and a step that does not hold, turn it red.

The whole story is `make prove`: it takes minutes on an emulated processor, too long for every run.
"""

from __future__ import annotations

import pytest

from tests.bed.canaries import CANARIES
from tests.bed.guest import Guest
from tests.prove.attempts import Attempts, put_inside
from tests.prove.transcript import Transcript, UnprovenError, expect

# A guest sees an attempt that fails at once, and a datagram to a port where nobody listens. A stream to such a port on
# loopback is refused by the host itself and tries to leave nothing.
SEEN = [canary for canary in CANARIES if canary.address != "224.0.0.251"]


def test_control_each_way_out_turns_the_proof_red(guest: Guest) -> None:
    put_inside(guest)
    attempts = Attempts(guest)
    attempts.arm()
    total = attempts.require_none().total
    for canary in SEEN:
        guest.run(canary.argv, check=False)
        found = attempts.count()
        assert found.total > total, canary.name
        total = found.total
    with pytest.raises(UnprovenError, match="tries to leave the host"):
        attempts.require_none()


def test_step_that_is_not_as_it_must_be_ends_the_proof_and_is_reported() -> None:
    said: list[str] = []
    transcript = Transcript(said.append)
    with transcript.step("Something", "that it holds"):
        expect("the colour", "green", "green")
    with (
        pytest.raises(UnprovenError, match=r"the colour\n  expected green\n  found    red"),
        transcript.step("B", "no"),
    ):
        expect("the colour", "green", "red")
    assert [step.title for step in transcript.proven] == ["Something"]
