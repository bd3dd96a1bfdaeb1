"""T11: one key tries to count as two."""

from __future__ import annotations

import pytest

from signing.digest import Digest
from signing.keys import PublicKey, key_from_json
from signing.roles import Envelope, Role
from signing.strictjson import Json, load, to_file
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.sim.tuf import Signed

ROW = row(11)
ALIAS = Digest("f" * 64)


def give_alias(stick: Stick) -> None:
    """The first signer's key stands in the root a second time, under another id."""
    own = stick.repository.people.targets[0].public.key_id

    def change(root: Signed) -> None:
        root["keys"][ALIAS] = root["keys"][own]
        root["roles"]["targets"]["keyids"] = sorted([*root["roles"]["targets"]["keyids"], ALIAS])

    stick.repository.edit("1.root.json", change)
    stick.save()


def sign_alone(stick: Stick, second_id: str) -> None:
    """The first signer signs alone, and writes the signature down twice."""
    repository = stick.repository
    repository.edit(repository.targets_name, lambda _: None, by=[repository.people.targets[0]])
    value = load(repository.files[repository.targets_name], "targets")
    [signature] = value["signatures"]
    value["signatures"].append({**signature, "keyid": second_id or signature["keyid"]})
    repository.put_targets(to_file(value), repository.targets_version)
    stick.save()


def test_unattacked_two_keys_count_as_two(stick: Stick) -> None:
    assert len(stick.verify().evidence.signers) == 2


def test_attacked_by_the_same_signature_twice(stick: Stick) -> None:
    sign_alone(stick, "")
    refused(ROW, stick.verify, "metadata.refused", "2.targets.json")


def test_attacked_by_one_key_under_two_ids(stick: Stick) -> None:
    give_alias(stick)
    sign_alone(stick, ALIAS)
    refused(ROW, stick.verify, "metadata.refused", "pinned root")


@pytest.mark.parametrize("role", ["root", "targets"])
def test_attacked_by_a_role_that_names_a_key_twice(stick: Stick, role: str) -> None:
    def change(root: Signed) -> None:
        ids = root["roles"][role]["keyids"]
        ids[1:] = [ids[0], ids[0]]

    stick.repository.edit("1.root.json", change)
    stick.save()
    refused(ROW, stick.verify, "metadata.refused", f"pinned root role {role}")


def test_attacked_by_a_threshold_of_nobody(stick: Stick) -> None:
    stick.repository.edit("1.root.json", lambda root: root["roles"]["targets"].update(threshold=0))
    stick.save()
    refused(ROW, stick.verify, "metadata.refused", "pinned root role targets")


def test_unguarded_the_count_of_distinct_keys_still_refuses_it_and_without_that_it_passes(stick: Stick) -> None:
    def any_id(_key_id: str, value: Json, subject: str) -> PublicKey:
        return key_from_json(value, subject)

    def count_ids(envelope: Envelope, role: Role, _subject: str, _others: object = ()) -> tuple[PublicKey, ...]:
        signers = tuple(role.keys[key_id] for key_id, _ in envelope.signatures if key_id in role.keys)
        assert len(signers) >= role.threshold
        return signers

    give_alias(stick)
    sign_alone(stick, ALIAS)
    with guard_off(ROW.guard, any_id):
        refused(ROW, stick.verify, "signature.threshold", "2.targets.json")
        with guard_off("signing.roles.check_signatures", count_ids):
            assert len({signer.spki for signer in stick.verify().evidence.signers}) == 1
