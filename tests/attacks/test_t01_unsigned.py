"""T1: an unsigned bundle, a stranger's bundle, and every set of signatures below the threshold."""

from __future__ import annotations

from itertools import combinations

import pytest

from signing.digest import sha256
from signing.roles import Role
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.sim.tuf import STRANGERS, TufRepository

ROW = row(1)
ENOUGH = [*combinations(range(3), 2), (0, 1, 2)]
TOO_FEW: list[tuple[int, ...]] = [(), (0,), (1,), (2,)]


def sign_by(stick: Stick, numbers: tuple[int, ...]) -> None:
    people = stick.repository.people.targets
    stick.repository.edit(stick.repository.targets_name, lambda _: None, by=[people[at] for at in numbers])
    stick.save()


def by_strangers(stick: Stick, *, brings_root: bool) -> None:
    pinned, theirs = stick.root, TufRepository(STRANGERS)
    theirs.publish(stick.repository.signed(stick.repository.targets_name)["targets"])
    if not brings_root:
        del theirs.files["1.root.json"]
    stick.repository = theirs
    stick.save()
    stick.root_file.write_bytes(pinned)


@pytest.mark.parametrize("numbers", ENOUGH)
def test_unattacked_bundle_with_enough_signatures_verifies(stick: Stick, numbers: tuple[int, ...]) -> None:
    sign_by(stick, numbers)
    assert stick.command().code == 0


@pytest.mark.parametrize("numbers", TOO_FEW)
def test_attacked_by_too_few_signatures(stick: Stick, numbers: tuple[int, ...]) -> None:
    sign_by(stick, numbers)
    refused(ROW, stick.verify, "signature.threshold", "2.targets.json")
    assert stick.command().code == 4


@pytest.mark.parametrize(
    ("brings_root", "code", "subject"),
    [(True, "root.differs", "1.root.json"), (False, "signature.stranger", "timestamp.json")],
)
def test_attacked_by_a_whole_foreign_bundle(stick: Stick, brings_root: bool, code: str, subject: str) -> None:
    by_strangers(stick, brings_root=brings_root)
    refused(ROW, stick.verify, code, subject)
    assert stick.command().code == 4


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_attacked_by_metadata_that_nobody_signed(stick: Stick, role: str) -> None:
    name = "timestamp.json" if role == "timestamp" else stick.repository.snapshot_name
    stick.repository.edit(name, lambda _: None, by=[])
    if role == "snapshot":
        rename_snapshot(stick)
    stick.save()
    refused(ROW, stick.verify, "signature.threshold", name)
    assert stick.command().code == 4


def rename_snapshot(stick: Stick) -> None:
    """Let the timestamp name the snapshot as it now is."""
    data = stick.repository.files[stick.repository.snapshot_name]
    meta = {"length": len(data), "hashes": {"sha256": sha256(data)}}
    stick.repository.edit("timestamp.json", lambda signed: signed["meta"]["snapshot.json"].update(meta))


@pytest.mark.parametrize("numbers", TOO_FEW)
def test_attacked_by_a_pinned_root_with_too_few_signatures(stick: Stick, numbers: tuple[int, ...]) -> None:
    """A pinned root came from somebody: half a ceremony is none."""
    people = stick.repository.people.root
    stick.repository.edit("1.root.json", lambda _: None, by=[people[at] for at in numbers])
    stick.save()
    refused(ROW, stick.verify, "signature.threshold", "pinned root")
    assert stick.command().code == 4


@pytest.mark.parametrize("numbers", [(0,), (1,), (2,)])
def test_attacked_by_one_signature_and_those_of_other_offices(stick: Stick, numbers: tuple[int, ...]) -> None:
    repository = stick.repository
    own = [repository.people.targets[at] for at in numbers]
    for others in (repository.people.root, (repository.people.builder,)):
        repository.edit(repository.targets_name, lambda _: None, by=[*own, *others])
        stick.save()
        refused(ROW, stick.verify, "signature.stranger", "2.targets.json")


def test_unguarded_nobody_need_have_signed(stick: Stick) -> None:
    def accept_all(_envelope: object, role: Role, _subject: str, _others: object = ()) -> tuple[object, ...]:
        return tuple(role.keys.values())

    with guard_off(ROW.guard, accept_all):
        sign_by(stick, ())
        stick.verify()
        by_strangers(stick, brings_root=True)
        refused(ROW, stick.verify, "root.differs", "1.root.json")  # signing.chain._check_copy
        by_strangers(stick, brings_root=False)
        stick.verify()
