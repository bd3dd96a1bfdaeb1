"""T1: an unsigned bundle, a stranger's bundle, and every set of signatures below the threshold."""

from __future__ import annotations

from itertools import combinations

import pytest

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


def test_unguarded_nobody_need_have_signed(stick: Stick) -> None:
    def believe(_envelope: object, role: Role, _subject: str, _others: object = ()) -> tuple[object, ...]:
        return tuple(role.keys.values())

    with guard_off(ROW.guard, believe):
        sign_by(stick, ())
        stick.verify()
        by_strangers(stick, brings_root=True)
        refused(ROW, stick.verify, "root.differs", "1.root.json")  # signing.chain._check_copies
        by_strangers(stick, brings_root=False)
        stick.verify()
