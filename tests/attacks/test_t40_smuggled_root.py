"""T40: the bundle brings the root that it wants to be checked against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.host.layout.prefix import Prefix
from appliance.host.trust.root_choice import choose_root
from appliance.host.trust.root_pin import pin_root
from appliance.host.trust.trust_store import read_root
from appliance.keys.signers.pem import PemKey
from signing.strictjson import load, to_file
from tests.attacks.harness import Stick, command, guard_off, refused, row
from tests.sim.tuf import STRANGERS, USUAL, TufRepository, keys

ROW = row(40)


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    return Prefix.at(tmp_path / "host")


def fingerprints(repository: TufRepository) -> list[str]:
    return [key.public.fingerprint for key in repository.people.root]


def replace_everything(stick: Stick) -> Path:
    """A foreign bundle that is whole in itself, its root included; also where a workspace keeps its root."""
    theirs = TufRepository(STRANGERS)
    theirs.publish(stick.repository.signed(stick.repository.targets_name)["targets"])
    theirs.write_to(stick.path / "metadata")
    (stick.path / "trust").mkdir()
    replace(stick, repository=theirs).put_boot()
    for place in ("trust/root.json", "root.json"):
        (stick.path / place).write_bytes(theirs.pinned)
    return stick.path / "root.json"


def verify_on(prefix: Prefix, stick: Stick) -> int:
    return command("verify", stick.path, "--prefix", prefix.root).code


def test_unattacked_host_that_has_pinned_the_root_verifies(stick: Stick, prefix: Prefix) -> None:
    pin_root(prefix, stick.root_file, fingerprints(stick.repository))
    assert verify_on(prefix, stick) == 0


def test_attacked_host_without_a_root_takes_none_from_the_stick(stick: Stick, prefix: Prefix) -> None:
    replace_everything(stick)
    refused(ROW, lambda: choose_root(None, prefix, None), "trust.none-pinned", str(prefix.root))
    assert verify_on(prefix, stick) == 4


def test_attacked_operator_who_stands_in_the_sticks_folder(
    stick: Stick, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stick holds `trust/root.json`, as a workspace does; the folder that one stands in is nobody's choice."""
    replace_everything(stick)
    monkeypatch.chdir(stick.path)
    for arguments in (("verify", "."), ("install", ".")):
        assert command(*arguments, "--prefix", prefix.root).code == 4


def test_attacked_host_with_a_root_keeps_it(stick: Stick, prefix: Prefix) -> None:
    pin_root(prefix, stick.root_file, fingerprints(stick.repository))
    replace_everything(stick)
    refused(ROW, stick.verify, "root.differs", "1.root.json")
    assert verify_on(prefix, stick) == 4
    assert command("install", stick.path, "--prefix", prefix.root).code == 4
    assert read_root(prefix) == stick.root


def test_attacked_by_pinning_what_the_stick_brings(stick: Stick, prefix: Prefix) -> None:
    """The fingerprints are the ones on paper: the operator types them, the stick's root does not have them."""
    smuggled = replace_everything(stick)
    on_paper = fingerprints(stick.repository)
    refused(ROW, lambda: pin_root(prefix, smuggled, on_paper), "trust.wrong-fingerprint", str(smuggled))
    assert read_root(prefix) is None


def test_attacked_by_a_second_pinning(stick: Stick, prefix: Prefix) -> None:
    pin_root(prefix, stick.root_file, fingerprints(stick.repository))
    smuggled = replace_everything(stick)
    theirs = [part for one in STRANGERS.root for part in ("--fingerprint", one.public.fingerprint)]
    answer = command("trust", "pin", smuggled, *theirs, "--prefix", prefix.root)
    assert (answer.code, "already pinned" in answer.talk) == (1, True)
    assert read_root(prefix) == stick.root


NEXT = replace(USUAL, root=keys("t40-root", 3))


def rotate_by(stick: Stick, signers: Sequence[PemKey]) -> None:
    """A successor under which only the smugglers are root; everything after it is signed as it should be."""
    stick.repository.rotate(NEXT, by=signers)
    stick.save()


def test_attacked_by_a_successor_that_too_few_of_the_pinned_people_signed(stick: Stick, prefix: Prefix) -> None:
    pin_root(prefix, stick.root_file, fingerprints(stick.repository))
    for old in ((), USUAL.root[:1], USUAL.root[1:2], USUAL.root[2:]):
        made = replace(stick, repository=TufRepository())
        made.publish()
        rotate_by(made, [*old, *NEXT.root])
        refused(ROW, made.verify, "signature.threshold", "2.root.json")
        assert verify_on(prefix, stick) == 4
    assert read_root(prefix) == stick.root


def test_attacked_by_a_successor_signed_by_other_offices(stick: Stick) -> None:
    for others in (USUAL.targets, (USUAL.builder,)):
        made = replace(stick, repository=TufRepository())
        made.publish()
        rotate_by(made, [USUAL.root[0], *others, *NEXT.root])
        refused(ROW, made.verify, "signature.stranger", "2.root.json")


def test_attacked_by_a_successor_with_one_old_signature_in_two_slots(stick: Stick) -> None:
    rotate_by(stick, [USUAL.root[0], *NEXT.root])
    name = "2.root.json"
    value = load(stick.repository.files[name], name)
    [own] = [one for one in value["signatures"] if one["keyid"] == USUAL.root[0].public.key_id]
    for second, code in ((own["keyid"], "metadata.refused"), (USUAL.root[1].public.key_id, "signature.invalid")):
        signatures = [*value["signatures"], {**own, "keyid": second}]
        stick.repository.files[name] = to_file({**value, "signatures": signatures})
        stick.save()
        refused(ROW, stick.verify, code, name)


def test_attacked_by_a_successor_that_its_own_people_did_not_sign(stick: Stick) -> None:
    """Or the next root could be made of keys that nobody holds."""
    rotate_by(stick, [*USUAL.root[:2], NEXT.root[0]])
    refused(ROW, stick.verify, "signature.threshold", "2.root.json")


def test_unattacked_successor_that_both_signed_is_followed(stick: Stick, prefix: Prefix) -> None:
    pin_root(prefix, stick.root_file, fingerprints(stick.repository))
    rotate_by(stick, [*USUAL.root[:2], *NEXT.root[:2]])
    stick.put_boot()
    assert stick.verify().evidence.floors.root == 2
    assert verify_on(prefix, stick) == 0


def test_unguarded_the_sticks_own_root_proves_the_stick(stick: Stick, prefix: Prefix) -> None:
    smuggled = replace_everything(stick)
    with guard_off(ROW.guard, lambda *_: smuggled.read_bytes()):
        assert verify_on(prefix, stick) == 0
