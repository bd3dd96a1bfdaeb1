"""A whole repository that python-tuf's metadata API wrote and signed passes our door, and its negative twins do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tuf.api.metadata import DelegatedRole, Delegations
from tuf.api.serialization.json import JSONSerializer

from signing.errors import ApplianceError
from signing.floors import Floors
from signing.verified import Verified
from signing.verify import Chain, verify
from tests.conformance.publisher import EVERY, Publisher, signer
from tests.toy import NOW

TARGET = "bundles/toy/1.0.0/manifest.json"
DATA = b'{"written":"by another program"}'
ISSUED = {"x-appliance-issued": "2026-01-02T03:04:05Z"}
ROOTS = [signer(f"writer-root-{number}") for number in range(4)]
RELEASERS = [signer(f"writer-targets-{number}") for number in range(3)]


class Writer(Publisher):
    """python-tuf, which writes what TRUST 2 asks for: 2 of 3 for root and targets, one builder, compact JSON."""

    is_compact = True

    def __init__(self) -> None:
        super().__init__(has_hashes=True)
        self.root.unrecognized_fields.update(ISSUED)
        self.targets.unrecognized_fields.update(ISSUED)
        self.people("root", ROOTS[:3])
        self.people("targets", RELEASERS)
        self.builder("1")
        self.add_target(TARGET, DATA)
        self.targets.targets[TARGET].unrecognized_fields["custom"] = {"status": "current", "statements": []}
        self.publish(*EVERY, bump=False)
        self.pinned = self.files["metadata/1.root.json"]

    def people(self, role: str, people: list[Any], also: tuple[Any, ...] = ()) -> None:
        """Two of three from now on, of whom the first two sign, and who else must."""
        self.replace(role, *people, threshold=2)
        self.signers[role] = [*also, *people[:2]]

    def builder(self, name: str) -> None:
        """One key for snapshot and timestamp from now on."""
        for role in ("snapshot", "timestamp"):
            self.replace(role, signer(f"writer-builder-{name}"))

    def sign(self, role: str, signed: Any) -> bytes:
        self.signers[role] = list(dict.fromkeys(self.signers[role]))
        data = super().sign(role, signed)
        return self.compact(data) if self.is_compact else data

    @staticmethod
    def compact(data: bytes) -> bytes:
        from tuf.api.metadata import Metadata

        return Metadata.from_bytes(data).to_bytes(JSONSerializer(compact=True))

    def verify(self, floors: Floors = Floors()) -> Verified[bytes]:  # noqa: B008 - frozen
        chain = Chain(
            self.pinned,
            lambda name, _: self.files.get(f"metadata/{name}"),
            lambda path, _: self.files.get(f"targets/{path}"),
        )
        return verify(chain, TARGET, bytes, floors, NOW)


@pytest.fixture
def writer() -> Writer:
    """Its third root: two people left by and by, others came, and so did a new builder's key."""
    made = Writer()
    made.people("root", [ROOTS[0], ROOTS[1], ROOTS[3]])
    made.builder("2")
    made.publish("root", "snapshot", "timestamp")
    made.people("root", [ROOTS[3], ROOTS[2], ROOTS[1]], also=(ROOTS[1],))
    made.publish("root")
    made.publish("targets", "snapshot", "timestamp")
    return made


def test_repository_written_by_python_tuf_is_accepted_and_its_target_fetched(writer: Writer) -> None:
    found = writer.verify()
    assert found.value == DATA
    told = found.evidence
    assert (told.threshold, told.asked, len(told.signers)) == (2, 3, 2)
    assert (told.floors.root, told.floors.targets, told.floors.time) == (3, 2, ISSUED["x-appliance-issued"])
    assert {one.key_id for one in told.signers} == {one.public_key.keyid for one in RELEASERS[:2]}


def publish_all(writer: Writer) -> None:
    writer.publish("targets", "snapshot", "timestamp")


def one_root_key(writer: Writer) -> None:
    writer.signers["root"] = [ROOTS[3]]
    writer.publish("root")


def successor_by_its_own_people_alone(writer: Writer) -> None:
    writer.replace("root", ROOTS[0], RELEASERS[0], threshold=2)
    writer.publish("root")


def one_release_key(writer: Writer) -> None:
    writer.signers["targets"] = RELEASERS[:1]
    publish_all(writer)


def stranger(writer: Writer) -> None:
    writer.signers["targets"] = [RELEASERS[0], signer("writer-thief")]
    publish_all(writer)


def builder_chooses_targets(writer: Writer) -> None:
    writer.signers["targets"] = [signer("writer-builder-2")]
    publish_all(writer)


def released_snapshot(writer: Writer) -> None:
    writer.signers["snapshot"] = [RELEASERS[0]]
    publish_all(writer)


def builder_among_the_people(writer: Writer) -> None:
    writer.add("targets", signer("writer-builder-2"))
    writer.publish("root")


def old_builder(writer: Writer) -> None:
    writer.signers["timestamp"] = [signer("writer-builder-1")]
    writer.publish("timestamp")


def other_key(writer: Writer) -> None:
    writer.root.add_key(signer("writer-ed", "ed25519").public_key, "targets")
    writer.publish("root")


def other_snapshot(writer: Writer) -> None:
    writer.snapshot.meta["targets.json"].version = 1
    writer.put("snapshot", writer.snapshot.version, writer.sign("snapshot", writer.snapshot))


def no_hashes(writer: Writer) -> None:
    writer.has_hashes = False
    publish_all(writer)


def no_time(writer: Writer) -> None:
    del writer.targets.unrecognized_fields["x-appliance-issued"]
    publish_all(writer)


def indented(writer: Writer) -> None:
    writer.is_compact = False
    publish_all(writer)


def delegated(writer: Writer) -> None:
    writer.targets.delegations = Delegations({}, {"other": DelegatedRole("other", [], 1, False, ["*"])})
    publish_all(writer)


def revoked(writer: Writer) -> None:
    writer.targets.targets[TARGET].unrecognized_fields["custom"]["status"] = "revoked"
    publish_all(writer)


def removed(writer: Writer) -> None:
    del writer.targets.targets[TARGET]
    publish_all(writer)


def changed(writer: Writer) -> None:
    [path] = (name for name in writer.files if name.startswith("targets/"))
    writer.files[path] = DATA.replace(b"another", b"no other")[: len(DATA)]


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        (one_root_key, "signature.threshold"),
        (successor_by_its_own_people_alone, "signature.threshold"),
        (one_release_key, "signature.threshold"),
        (stranger, "signature.stranger"),
        (builder_chooses_targets, "signature.stranger"),
        (released_snapshot, "signature.stranger"),
        (old_builder, "signature.stranger"),
        (builder_among_the_people, "metadata.refused"),
        (other_key, "key.refused"),
        (other_snapshot, "metadata.mixed"),
        (no_hashes, "metadata.refused"),
        (no_time, "metadata.refused"),
        (indented, "json.refused"),
        (delegated, "metadata.refused"),
        (revoked, "target.revoked"),
        (removed, "target.unknown"),
        (changed, "target.differs"),
    ],
)
def test_its_negative_twin_is_refused(writer: Writer, attack: Callable[[Writer], None], code: str) -> None:
    attack(writer)
    with pytest.raises(ApplianceError) as caught:
        writer.verify()
    assert caught.value.code == code
    assert caught.value.exit_code == (3 if code == "target.differs" else 4)


def test_what_it_published_before_is_refused_by_a_host_that_has_seen_more(writer: Writer) -> None:
    older = dict(writer.files)
    publish_all(writer)
    floors = writer.verify().evidence.floors
    writer.files = older
    with pytest.raises(ApplianceError, match="version.rollback"):
        writer.verify(floors)
