"""T10: an insider with one key, and a thief of the builder's key."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from signing.strictjson import load, to_file
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.sim.tuf import Signed, TufRepository, key, stated
from tests.toy import NOW

ROW = row(10)
BUILDER = key("builder")
LATER = stated(NOW + timedelta(days=30_000))


def let_the_builder_choose(stick: Stick) -> None:
    """A root in which the builder's key is also a targets key: then one stolen key chooses the content."""
    people = stick.repository.people
    careless = replace(people, targets=(BUILDER,), targets_threshold=1)
    stick.repository = TufRepository(careless)
    stick.publish()


def test_unattacked_builder_may_renew_snapshot_and_timestamp(stick: Stick) -> None:
    stick.repository.put_snapshot(9)
    stick.save()
    assert stick.verify().evidence.floors.snapshot == 9


def test_attacked_by_targets_that_the_builder_signed(stick: Stick) -> None:
    stick.repository.edit(stick.repository.targets_name, lambda _: None, by=[BUILDER])
    stick.save()
    refused(ROW, stick.verify, "signature.stranger", "2.targets.json")


def test_attacked_by_one_insider_with_the_builders_help(stick: Stick) -> None:
    insider = stick.repository.people.targets[0]
    stick.repository.edit(stick.repository.targets_name, lambda _: None, by=[insider, BUILDER])
    stick.save()
    refused(ROW, stick.verify, "signature.stranger", "2.targets.json")


def test_attacked_by_one_insider_alone(stick: Stick) -> None:
    for insider in stick.repository.people.targets:
        stick.repository.edit(stick.repository.targets_name, lambda _: None, by=[insider])
        stick.save()
        refused(ROW, stick.verify, "signature.threshold", "2.targets.json")


def test_attacked_by_an_insider_who_reuses_a_colleagues_signature(stick: Stick) -> None:
    """The colleague has signed every version so far; the insider takes that signature for the next."""
    repository = stick.repository
    insider, colleague = repository.people.targets[:2]
    old = load(repository.files[repository.targets_name], "targets")["signatures"]
    stick.publish()
    repository.edit(repository.targets_name, lambda _: None, by=[insider])
    value = load(repository.files[repository.targets_name], "targets")
    value["signatures"] += [one for one in old if one["keyid"] == colleague.public.key_id]
    assert len(value["signatures"]) == 2
    repository.put_targets(to_file(value), repository.targets_version)
    stick.save()
    refused(ROW, stick.verify, "signature.invalid", "3.targets.json")


def test_attacked_by_an_insider_with_one_root_key_who_lowers_the_threshold(stick: Stick) -> None:
    repository = stick.repository
    insider = repository.people.root[0]
    repository.rotate(replace(repository.people, root=(insider,), root_threshold=1), by=[insider])
    stick.save()
    refused(ROW, stick.verify, "signature.threshold", "2.root.json")


def test_attacked_by_a_root_key_that_signs_content(stick: Stick) -> None:
    insider = stick.repository.people.targets[0]
    for helper in stick.repository.people.root:
        stick.repository.edit(stick.repository.targets_name, lambda _: None, by=[insider, helper])
        stick.save()
        refused(ROW, stick.verify, "signature.stranger", "2.targets.json")


def test_attacked_by_people_who_sign_in_the_builders_place(stick: Stick) -> None:
    for role, insider in (("root", 0), ("targets", 0)):
        stick.repository.edit("timestamp.json", lambda _: None, by=[getattr(stick.repository.people, role)[insider]])
        stick.save()
        refused(ROW, stick.verify, "signature.stranger", "timestamp.json")


def test_attacked_by_a_builder_who_raises_the_time(stick: Stick) -> None:
    def claim(value: Signed) -> None:
        value["x-appliance-issued"] = LATER

    stick.repository.edit("timestamp.json", claim)
    stick.save()
    evidence = stick.verify().evidence
    assert (evidence.floors.time, evidence.is_expired) == (stated(NOW), False)


def test_attacked_by_a_builder_who_signs_a_root(stick: Stick) -> None:
    stick.repository.rotate(stick.repository.people, by=[BUILDER])
    stick.save()
    refused(ROW, stick.verify, "signature.stranger", "2.root.json")


def test_attacked_by_a_root_that_gives_the_builder_two_offices(stick: Stick) -> None:
    let_the_builder_choose(stick)
    refused(ROW, stick.verify, "metadata.refused", "pinned root")


def test_unguarded_the_builder_alone_chooses_the_content(stick: Stick) -> None:
    let_the_builder_choose(stick)
    with guard_off(ROW.guard, lambda *_: None):
        [signer] = stick.verify().evidence.signers
    assert signer == BUILDER.public
