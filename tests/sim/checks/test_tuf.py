"""The repository in memory makes chains that the product walks, and only the faults that a test asks for."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from signing.errors import NotTrustedError
from tests.sim.tuf import STRANGERS, USUAL, People, TufRepository, entry, key, keys, stated
from tests.toy import NOW


def test_two_of_three_people_sign_and_the_chain_holds() -> None:
    repository = TufRepository()
    repository.publish({"a": entry(b"data")})
    walked = repository.walk()
    assert (walked.root.roles["root"].threshold, len(walked.root.roles["root"].keys)) == (2, 3)
    assert (len(walked.signers), walked.targets.version, list(walked.targets.entries)) == (2, 2, ["a"])
    assert walked.root.profile == ""


def test_any_thresholds_can_be_asked_for() -> None:
    repository = TufRepository(People(keys("root", 5), 4, keys("targets", 1), 1, key("builder"), "development"))
    walked = repository.walk()
    assert (walked.root.roles["root"].threshold, len(walked.signers), walked.root.profile) == (4, 1, "development")


def test_rotation_is_followed_and_what_the_new_people_sign_counts() -> None:
    repository = TufRepository()
    repository.publish({"a": entry(b"data")})
    repository.rotate(STRANGERS)
    walked = repository.walk()
    assert walked.root.version == 2
    assert {one.spki for one in walked.signers} == {one.public.spki for one in STRANGERS.targets[:2]}
    assert list(walked.targets.entries) == ["a"]


def test_edited_file_is_signed_again_by_whom_it_says() -> None:
    repository = TufRepository()
    later = stated(NOW + timedelta(days=9))
    repository.edit(repository.targets_name, lambda value: value.update({"x-appliance-issued": later}))
    assert repository.walk().floors.time == later
    repository.edit(repository.targets_name, lambda value: None, by=[key("thief")])
    with pytest.raises(NotTrustedError):
        repository.walk()


def test_everybody_states_the_time_that_the_test_sets() -> None:
    repository = TufRepository()
    repository.state(NOW + timedelta(days=3))
    repository.publish({})
    assert repository.walk().floors.time == stated(NOW + timedelta(days=3))


def test_folder_holds_exactly_the_newest_files(tmp_path: Path) -> None:
    repository = TufRepository()
    repository.publish({})
    (tmp_path / "old.json").touch()
    repository.write_to(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "1.root.json",
        "2.snapshot.json",
        "2.targets.json",
        "timestamp.json",
    ]


def test_keys_are_made_once() -> None:
    assert key("thief") is key("thief")
    assert USUAL.root == keys("root", 3)
