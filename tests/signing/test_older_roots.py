"""What older roots of a chain show: keys that sign no longer, revoked keys, and roots that do not belong there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from signing.chain import walk
from signing.floors import Floors
from signing.roles import REVOKED_KEYS
from tests.signing.test_chain_walk import refused
from tests.sim.tuf import STRANGERS, USUAL, TufRepository, entry, key, keys


@pytest.fixture
def repository() -> TufRepository:
    made = TufRepository()
    made.publish({"bundles/a/1/manifest.json": entry(b"1")})
    return made


def test_former_keys_are_those_of_every_older_root_of_the_chain(repository: TufRepository) -> None:
    new, left = keys("walk-targets", 2), {one.public.spki for one in USUAL.targets[1:]}
    repository.rotate(replace(USUAL, targets=(USUAL.targets[0], *new)))
    assert {one.spki for one in repository.walk().former} == left
    # The same for a host that has pinned the newer root: the older one lies beside it, and has signed it.
    pinned = repository.files["2.root.json"]
    assert {one.spki for one in walk(pinned, repository.read, Floors()).former} == left
    del repository.files["1.root.json"]
    assert walk(pinned, repository.read, Floors()).former == ()


def test_older_root_that_has_not_signed_the_one_after_it_is_refused(repository: TufRepository) -> None:
    repository.rotate(USUAL)
    pinned = repository.files["2.root.json"]
    assert walk(pinned, repository.read, Floors()).root.version == 2
    repository.files["1.root.json"] = TufRepository(STRANGERS).pinned
    refused(lambda: walk(pinned, repository.read, Floors()), "root.not-of-this-chain", "1.root.json")


def test_older_root_with_a_gap_after_it_is_refused(repository: TufRepository) -> None:
    repository.rotate(USUAL)
    repository.rotate(USUAL)
    pinned = repository.files["3.root.json"]
    assert walk(pinned, repository.read, Floors()).root.version == 3
    del repository.files["2.root.json"]
    refused(lambda: walk(pinned, repository.read, Floors()), "root.not-of-this-chain", "1.root.json")


def test_roots_that_came_after_a_medium_was_written_are_taken_from_elsewhere(repository: TufRepository) -> None:
    repository.rotate(replace(USUAL, targets=(*USUAL.targets[:2], key("walk-new"))))
    repository.rotate(USUAL)
    pinned, link = repository.files["3.root.json"], {"2.root.json": repository.files.pop("2.root.json")}
    garbage, forged = lambda _name, _most: b"{}", TufRepository(STRANGERS).files
    links = (garbage, lambda name, _most: forged.get(name), lambda name, _most: link.get(name))
    walked = walk(pinned, repository.read, Floors(), links=links)
    assert {one.key_id for one in walked.former} == {key("walk-new").public.key_id}
    assert walked.files["2.root.json"] == link["2.root.json"], "what is stored of this walk has no gap"
    refused(lambda: walk(pinned, repository.read, Floors(), links=links[:2]), "root.not-of-this-chain", "1.root.json")
    repository.files["1.root.json"] = TufRepository(STRANGERS).pinned
    refused(lambda: walk(pinned, repository.read, Floors(), links=links), "root.not-of-this-chain", "1.root.json")


def test_key_that_any_root_on_the_way_revokes_is_revoked(repository: TufRepository) -> None:
    gone = USUAL.targets[2].public.key_id
    without = replace(USUAL, targets=(*USUAL.targets[:2], key("walk-new")))
    repository.rotate(without)
    repository.edit("2.root.json", lambda signed: signed.update({REVOKED_KEYS: [gone]}), by=USUAL.root[:2])
    assert repository.walk().revoked == {gone}
    repository.rotate(without)
    assert repository.walk().revoked == {gone}, "a later root that lists it no more takes nothing back"
