"""T12: targets that hand their say to somebody else."""

from __future__ import annotations

from signing import roles
from signing.keys import PublicKey, key_to_json
from signing.roles import Role, Targets
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.sim.tuf import Signed, key

ROW = row(12)
TARGET = "bundles/toy/1.0.0/manifest.json"
FRIEND = key("friend").public


def delegate(stick: Stick) -> None:
    """The bundle stands in a delegated file, which the friend signs, and no longer in targets."""
    repository = stick.repository
    name, entries = "friend", repository.signed(repository.targets_name)["targets"]
    role = {"name": name, "keyids": [FRIEND.key_id], "threshold": 1, "terminating": True, "paths": ["bundles/*"]}

    def change(targets: Signed) -> None:
        targets["targets"] = {}
        targets["delegations"] = {"keys": {FRIEND.key_id: key_to_json(FRIEND)}, "roles": [role]}

    repository.edit(repository.targets_name, lambda value: value.update(targets=entries), by=[key(name)])
    repository.files["2.friend.json"] = repository.files[repository.targets_name]
    repository.edit(repository.targets_name, change)
    stick.save()


def test_unattacked_flat_targets_verify(stick: Stick) -> None:
    assert stick.verify().evidence.target == TARGET


def test_attacked_by_delegated_targets(stick: Stick) -> None:
    delegate(stick)
    refused(ROW, stick.verify, "metadata.refused", "2.targets.json")
    assert stick.command().code == 4


def test_unguarded_nothing_follows_the_delegation(stick: Stick) -> None:
    def not_looking(data: bytes, role: Role, subject: str) -> tuple[Targets, tuple[PublicKey, ...]]:
        envelope = roles._open_envelope(data, "targets", subject)
        signers = roles.check_signatures(envelope, role, subject)
        entries = {name: roles._entry(value, name) for name, value in envelope.signed["targets"].items()}
        return Targets(envelope.version, envelope.expires, "", entries), signers

    delegate(stick)
    with guard_off(ROW.guard, not_looking):
        refused(ROW, stick.verify, "target.unknown", TARGET)  # signing.verify.verify
