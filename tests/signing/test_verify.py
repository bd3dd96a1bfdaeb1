"""The one door: what it asks of the chain, of the target, and of the value that was parsed from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from signing.digest import sha256
from signing.errors import ApplianceError, DamagedError, NotTrustedError
from signing.floors import Floors
from signing.roles import MAX_TARGET_BYTES
from signing.verified import Verified
from signing.verify import Chain, consistent_path, verify
from tests.sim.tuf import USUAL, Signed, TufRepository, entry, stated
from tests.toy import NOW

NAME = "bundles/a/1/manifest.json"
DATA = b'{"a":1}'
PATH = f"bundles/a/1/{sha256(DATA)}.manifest.json"


@pytest.fixture
def repository() -> TufRepository:
    made = TufRepository()
    made.publish({NAME: entry(DATA)})
    return made


def ask(
    repository: TufRepository,
    data: bytes | None = DATA,
    parse: Callable[[bytes], bytes] = bytes,
    name: str = NAME,
    **more: object,
) -> Verified[bytes]:
    return verify(
        Chain(repository.pinned, repository.read, lambda _path, _most: data),
        name,
        parse,
        Floors(),
        more.pop("now", NOW),  # type: ignore[arg-type]
        **more,  # type: ignore[arg-type]
    )


def refused(act: Callable[[], object], kind: type[ApplianceError], code: str, subject: str) -> ApplianceError:
    with pytest.raises(ApplianceError) as caught:
        act()
    error = caught.value
    assert (type(error), error.code, error.subject) == (kind, code, subject)
    return error


def test_value_and_evidence_say_what_was_proved(repository: TufRepository) -> None:
    made = ask(repository)
    evidence = made.evidence
    assert made.value == DATA
    assert (evidence.target, evidence.sha256, evidence.status) == (NAME, sha256(DATA), "current")
    assert {one.spki for one in evidence.signers} == {one.public.spki for one in USUAL.targets[:2]}
    assert (evidence.threshold, evidence.asked) == (2, 3)
    assert evidence.root == repository.walk().root.roles["root"]
    assert evidence.root_fingerprints == tuple(sorted(one.public.fingerprint for one in USUAL.root))
    assert evidence.floors == Floors(1, 2, 2, 2, stated(NOW))
    assert {one.spki for one in evidence.attesters} == {one.public.spki for one in USUAL.targets}
    assert (evidence.profile, evidence.passed_over, evidence.is_expired) == ("", (), False)
    assert evidence.metadata == repository.files
    assert "timestamp.json" not in repr(evidence)


def test_thresholds_of_root_and_targets_are_not_confused() -> None:
    made = TufRepository(replace(USUAL, targets=USUAL.targets[:2], targets_threshold=1))
    made.publish({NAME: entry(DATA)})
    evidence = ask(made).evidence
    assert (evidence.threshold, evidence.asked, evidence.root.threshold, len(evidence.root.keys)) == (1, 2, 2, 3)


def test_target_is_asked_for_once_by_its_consistent_path_and_no_longer_than_signed(repository: TufRepository) -> None:
    asked: list[tuple[str, int]] = []

    def read(path: str, most: int) -> bytes:
        asked.append((path, most))
        return DATA

    verify(Chain(repository.pinned, repository.read, read), NAME, bytes, Floors(), NOW)
    assert asked == [(PATH, len(DATA))]


def test_target_that_nobody_signed_is_refused(repository: TufRepository) -> None:
    name = "bundles/a/2/manifest.json"
    refused(lambda: ask(repository, name=name), NotTrustedError, "target.unknown", name)


@pytest.mark.parametrize("status", ["current", "allowed"])
def test_status_of_the_newest_targets_is_told(repository: TufRepository, status: str) -> None:
    repository.publish({NAME: entry(DATA, status)})
    assert ask(repository).evidence.status == status


def test_revoked_target_is_refused(repository: TufRepository) -> None:
    repository.publish({NAME: entry(DATA, "revoked")})
    refused(lambda: ask(repository), NotTrustedError, "target.revoked", NAME)


@pytest.mark.parametrize(
    ("data", "kind", "code"),
    [
        (None, DamagedError, "target.missing"),
        (DATA + b" ", NotTrustedError, "target.too-long"),
        (DATA[:-1], DamagedError, "target.differs"),
        (b"", DamagedError, "target.differs"),
        (DATA.replace(b"1", b"2"), DamagedError, "target.differs"),
    ],
)
def test_bytes_that_are_not_the_signed_ones_are_never_parsed(
    repository: TufRepository, data: bytes | None, kind: type[ApplianceError], code: str
) -> None:
    def parse(_data: bytes) -> bytes:
        raise AssertionError("parsed before it was checked")

    refused(lambda: ask(repository, data, parse), kind, code, PATH)


def test_empty_target_is_one(repository: TufRepository) -> None:
    repository.publish({NAME: entry(b"")})
    assert ask(repository, b"").value == b""


@pytest.mark.parametrize(("length", "passes"), [(MAX_TARGET_BYTES, True), (MAX_TARGET_BYTES + 1, False)])
def test_target_may_be_four_mebibytes(repository: TufRepository, length: int, passes: bool) -> None:
    assert MAX_TARGET_BYTES == 4 << 20
    data = bytes(length)
    repository.publish({NAME: entry(data)})
    if passes:
        assert ask(repository, data).value == data
    else:
        refused(lambda: ask(repository, data), NotTrustedError, "metadata.refused", f"3.targets.json {NAME}")


def require(repository: TufRepository, *statements: str) -> None:
    def change(value: Signed) -> None:
        value["targets"][NAME]["custom"]["statements"] = list(statements)

    repository.edit(repository.targets_name, change)


def test_statements_that_the_signers_require_must_be_made(repository: TufRepository) -> None:
    require(repository, "sbom", "provenance")
    for made in ((), ("sbom",), ("provenance", "other")):
        error = refused(
            lambda made=made: ask(repository, statements=lambda _: made),  # type: ignore[misc]
            NotTrustedError,
            "target.statements",
            NAME,
        )
        assert error.found == f"no {', '.join(sorted({'sbom', 'provenance'} - set(made)))}"
    refused(lambda: ask(repository), NotTrustedError, "target.statements", NAME)
    assert ask(repository, statements=lambda _: ["provenance", "sbom", "more"]).value == DATA


def test_statements_are_those_of_the_parsed_value(repository: TufRepository) -> None:
    seen: list[bytes] = []

    def made(value: bytes) -> list[str]:
        seen.append(value)
        return []

    ask(repository, parse=lambda data: data * 2, statements=made)
    assert seen == [DATA * 2]


@pytest.mark.parametrize(("seconds", "behind"), [(-1, True), (0, False), (1, False), (-86_400 * 9000, True)])
def test_clock_behind_the_proved_time_is_told_and_decides_nothing(
    repository: TufRepository, seconds: int, behind: bool
) -> None:
    assert ask(repository, now=NOW + timedelta(seconds=seconds)).evidence.clock_is_behind is behind


def test_other_sources_of_metadata_are_asked_too(repository: TufRepository) -> None:
    chain = Chain(repository.pinned, lambda *_: None, lambda *_: DATA, others=(repository.read,))
    made = verify(chain, NAME, bytes, Floors(), NOW)
    assert [error.code for error in made.evidence.passed_over] == ["metadata.missing"]
    assert Chain(b"", repository.read, repository.read).others == ()


@pytest.mark.parametrize(
    ("target", "path"), [("a/b/c.json", "a/b/D.c.json"), ("c", "D.c"), ("a/c", "a/D.c"), ("/c", "/D.c"), ("a/", "a/D.")]
)
def test_consistent_path_is_that_of_tuf(target: str, path: str) -> None:
    assert consistent_path(target, "D") == path
