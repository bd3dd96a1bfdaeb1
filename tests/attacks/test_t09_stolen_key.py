"""T9: a holder of one root key, or of every key of a release, tries to replace the root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from signing.roles import Role
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.sim.tuf import STRANGERS, Keys, People, key, keys

ROW = row(9)
THIEVES = replace(STRANGERS, root_threshold=1)


def successor(stick: Stick, people: People, by: Keys) -> None:
    """Put a second root on the stick; everything after it is signed by its people."""
    stick.repository.rotate(people, by)
    stick.publish()


def one_root_key(people: People) -> Keys:
    return (people.root[0], *THIEVES.root[:1])


def all_release_keys(people: People) -> Keys:
    return (*people.targets, people.builder, *THIEVES.root[:1])


def only_the_thieves(_people: People) -> Keys:
    return THIEVES.root


def test_unattacked_rotation_signed_by_old_and_new_thresholds_is_followed(stick: Stick) -> None:
    people = stick.repository.people
    # One of three keys was stolen: the two others replace it, and the builder's too.
    renewed = replace(people, root=(*people.root[1:], key("root-new")), builder=key("builder-new"))
    successor(stick, renewed, renewed.root)
    stick.put_boot()
    found = stick.verify()
    assert found.evidence.floors.root == 2
    assert people.root[0].public.fingerprint not in found.evidence.root_fingerprints


@pytest.mark.parametrize(
    ("signers", "code"),
    [
        (one_root_key, "signature.threshold"),
        (all_release_keys, "signature.stranger"),
        (only_the_thieves, "signature.threshold"),
    ],
)
def test_attacked_by_a_root_that_the_pinned_threshold_did_not_sign(
    stick: Stick, signers: Callable[[People], Keys], code: str
) -> None:
    successor(stick, THIEVES, signers(stick.repository.people))
    refused(ROW, stick.verify, code, "2.root.json")
    assert stick.command().code == 4


def test_attacked_by_a_root_that_its_own_people_did_not_sign(stick: Stick) -> None:
    """Two of the old keys name new people who know nothing of it."""
    successor(stick, STRANGERS, stick.repository.people.root[:2])
    refused(ROW, stick.verify, "signature.threshold", "2.root.json")


def test_attacked_with_a_key_that_the_newest_root_has_dropped(stick: Stick) -> None:
    people = stick.repository.people
    renewed = replace(people, targets=keys("renewed", 3))
    stick.repository.rotate(renewed)
    stick.repository.edit(stick.repository.targets_name, lambda _: None, by=people.targets[:2])
    stick.save()
    refused(ROW, stick.verify, "signature.stranger", stick.repository.targets_name)


@pytest.mark.parametrize("signers", [one_root_key, lambda people: (*people.targets, people.builder)])
def test_attacked_by_a_verifier_that_too_few_root_keys_signed(stick: Stick, signers: Callable[[People], Keys]) -> None:
    stick.put_boot(by=signers(stick.repository.people), verifier=b"print('every byte is what was signed')")
    refused(ROW, stick.verify, "signature.threshold", "BOOT/BOOT.sha256")
    assert stick.command().code == 4


def test_attacked_by_release_signatures_in_the_root_keys_places(stick: Stick) -> None:
    people = stick.repository.people
    stick.put_boot(by=people.targets)
    for release, root in zip(people.targets, people.root, strict=True):
        boot = stick.path / "BOOT"
        (boot / f"{release.public.fingerprint}.sig").rename(boot / f"{root.public.fingerprint}.sig")
    first = min((key.public for key in people.root), key=lambda public: public.key_id)
    refused(ROW, stick.verify, "signature.invalid", f"BOOT/BOOT.sha256 with BOOT/{first.fingerprint}.sig")


def test_unguarded_the_thieves_verifier_is_taken(stick: Stick) -> None:
    stick.put_boot(by=stick.repository.people.root[:1], verifier=b"print('every byte is what was signed')")
    with guard_off("bundles.bare_host.boot_check._signers", lambda *_: ()):
        stick.verify()


def test_unguarded_the_thieves_root_is_followed(stick: Stick) -> None:
    def accept_all(_envelope: object, role: Role, _subject: str, others: object = ()) -> tuple[object, ...]:
        return tuple(role.keys.values())

    successor(stick, THIEVES, one_root_key(stick.repository.people))
    stick.put_boot()
    with guard_off(ROW.guard, accept_all):
        known = {one.public.fingerprint for one in THIEVES.root}
        assert set(stick.verify().evidence.root_fingerprints) == known
