"""Only the door makes a `Verified`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from signing.floors import Floors
from signing.verified import _TOKEN, Evidence, Verified
from signing.verify import Chain, verify
from tests.sim.tuf import TufRepository, entry
from tests.toy import NOW

NAME = "bundles/a/1/manifest.json"


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    repository = TufRepository()
    repository.publish({NAME: entry(b"{}")})
    return verify(Chain(repository.pinned, repository.read, lambda *_: b"{}"), NAME, bytes, Floors(), NOW).evidence


@pytest.mark.parametrize("token", [None, object(), "", 0, True, Verified])
def test_without_the_doors_token_nobody_makes_one(evidence: Evidence, token: object) -> None:
    with pytest.raises(TypeError):
        Verified(b"", evidence, token)


def test_with_it_value_and_evidence_are_kept_and_nothing_can_be_added(evidence: Evidence) -> None:
    made = Verified(b"value", evidence, _TOKEN)
    assert (made.value, made.evidence) == (b"value", evidence)
    with pytest.raises(AttributeError):
        made.more = 1  # type: ignore[attr-defined]


def test_metadata_are_not_spelled_out_in_a_traceback(evidence: Evidence) -> None:
    assert "timestamp.json" in evidence.metadata
    assert "timestamp.json" not in repr(evidence)


def test_a_profile_says_that_a_development_root_stands_behind_it(evidence: Evidence) -> None:
    assert (evidence.profile, evidence.is_development) == ("", False)
    assert replace(evidence, profile="development").is_development is True
