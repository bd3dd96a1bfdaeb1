"""T11: one key tries to count as two."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from signing.digest import Digest
from signing.errors import ApplianceError
from signing.keys import PublicKey, key_from_json
from signing.roles import Envelope, Role
from signing.strictjson import Json, load, to_file, to_signing
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.sim.tuf import Signed

ROW = row(11)
ALIAS = Digest("f" * 64)
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


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


def put_signatures(stick: Stick, signatures: list[dict[str, str]]) -> None:
    """Targets with these signatures; the builder names them."""
    repository = stick.repository
    value = load(repository.files[repository.targets_name], "targets")
    repository.put_targets(to_file({**value, "signatures": signatures}), repository.targets_version)
    stick.save()


def own_signature(stick: Stick) -> dict[str, str]:
    """What the first signer alone has signed the targets with."""
    repository = stick.repository
    repository.edit(repository.targets_name, lambda _: None, by=[repository.people.targets[0]])
    [found] = load(repository.files[repository.targets_name], "targets")["signatures"]
    return {str(name): str(value) for name, value in found.items()}


def twin(signature: str) -> str:
    """The other signature that holds where this one does: (r, n - s)."""
    r, s = decode_dss_signature(bytes.fromhex(signature))
    return encode_dss_signature(r, ORDER - s).hex()


def test_attacked_by_a_signature_in_another_keys_slot(stick: Stick) -> None:
    own = own_signature(stick)
    for colleague in stick.repository.people.targets[1:]:
        put_signatures(stick, [own, {**own, "keyid": colleague.public.key_id}])
        refused(ROW, stick.verify, "signature.invalid", "2.targets.json")
        put_signatures(stick, [{**own, "keyid": colleague.public.key_id}])
        refused(ROW, stick.verify, "signature.invalid", "2.targets.json")


def test_attacked_by_both_signatures_that_one_key_can_make(stick: Stick) -> None:
    """An ECDSA signature has a twin that holds as well; it is another text by the same key."""
    own = own_signature(stick)
    other = {**own, "sig": twin(own["sig"])}
    stick.repository.people.targets[0].public.verify(
        bytes.fromhex(other["sig"]), to_signing(stick.repository.signed("2.targets.json")), "the twin holds"
    )
    put_signatures(stick, [own, other])
    refused(ROW, stick.verify, "metadata.refused", "2.targets.json")
    put_signatures(stick, [own, {**other, "keyid": stick.repository.people.targets[1].public.key_id}])
    refused(ROW, stick.verify, "signature.invalid", "2.targets.json")


@pytest.mark.parametrize("rewrite", [str.upper, lambda text: f" {text}", lambda text: f"0x{text[2:]}"])
def test_attacked_by_another_form_of_a_key_id(stick: Stick, rewrite: Callable[[str], str]) -> None:
    own = own_signature(stick)
    put_signatures(stick, [own, {**own, "keyid": rewrite(own["keyid"])}])
    refused(ROW, stick.verify, "digest.malformed", "2.targets.json")


def test_attacked_by_a_key_of_another_office(stick: Stick) -> None:
    own, people = own_signature(stick), stick.repository.people
    for other in (people.root[0], people.builder):
        stick.repository.edit(stick.repository.targets_name, lambda _: None, by=[people.targets[0], other])
        stick.save()
        refused(ROW, stick.verify, "signature.stranger", "2.targets.json")
        put_signatures(stick, [own, {**own, "keyid": other.public.key_id}])
        refused(ROW, stick.verify, "signature.stranger", "2.targets.json")


@pytest.mark.parametrize("threshold", [-1, 1 << 63, 10**30, 4, True, "2", 2.0])
def test_attacked_by_a_threshold_that_is_none(stick: Stick, threshold: object) -> None:
    stick.repository.edit("1.root.json", lambda root: root["roles"]["targets"].update(threshold=2))
    value = load(stick.repository.pinned, "root")
    value["signed"]["roles"]["targets"]["threshold"] = threshold
    stick.save()
    stick.root_file.write_bytes(to_file(value))
    error = caught(stick)
    assert (error.exit_code, error.subject.startswith("pinned root")) == (4, True)


def caught(stick: Stick) -> ApplianceError:
    with pytest.raises(ApplianceError) as found:
        stick.verify()
    return found.value


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
