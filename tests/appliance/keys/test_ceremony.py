"""Several people sign: fewer than the threshold publish nothing, and what comes back can only add signatures."""

from __future__ import annotations

import itertools
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.keys import tuf_metadata
from appliance.keys.ceremony import begin, collect, sign, waiting
from appliance.keys.publication import publish, revoke
from appliance.keys.signature_requests.request import Item, Request, read_request, write_request
from appliance.keys.signature_requests.request_rules import check_rules, check_trust
from appliance.keys.signature_requests.request_text import explain, progress
from appliance.keys.tuf_repository import JOURNAL, published, read_newest, write_signed
from appliance.keys.workspace import create_development, open_workspace
from bundles.medium import Medium
from signing.errors import ApplianceError, NotTrustedError, UsageError
from signing.strictjson import load, to_file
from tests.sim.people import ROOT, TARGETS, Ceremony, start
from tests.sim.tuf import Keys, keys
from tests.toy import NOW

LATER = NOW + timedelta(days=1)
PAIRS = tuple(itertools.combinations(range(3), 2))
TOO_FEW: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (2,))


def code(caught: pytest.ExceptionInfo[ApplianceError]) -> str:
    return caught.value.code


@pytest.mark.parametrize("root", PAIRS)
@pytest.mark.parametrize("targets", PAIRS)
def test_any_two_of_three_make_the_trust_root(tmp_path: Path, root: tuple[int, ...], targets: tuple[int, ...]) -> None:
    made = start(tmp_path)
    signers = (*(ROOT[at] for at in root), *(TARGETS[at] for at in targets))
    assert made.collect("root-1", signers).is_complete
    opened = open_workspace(made.workspace.path)
    assert (opened.root().profile, opened.root().roles["root"].threshold) == ("", 2)
    assert published(opened).walked.targets.entries == {}
    assert not made.waiting("root-1").exists()


@pytest.mark.parametrize("root", TOO_FEW)
@pytest.mark.parametrize("targets", TOO_FEW)
def test_no_smaller_number_makes_it(tmp_path: Path, root: tuple[int, ...], targets: tuple[int, ...]) -> None:
    made = start(tmp_path)
    signers = (*(ROOT[at] for at in root), *(TARGETS[at] for at in targets))
    if signers:
        assert not made.collect("root-1", signers).is_complete
    with pytest.raises(UsageError) as caught:
        open_workspace(made.workspace.path)
    assert code(caught) == "workspace.unsigned"
    assert not made.workspace.repository.root.exists()


def test_enough_for_the_root_and_too_few_for_content_is_too_few(tmp_path: Path) -> None:
    made = start(tmp_path)
    assert not made.collect("root-1", (*ROOT, TARGETS[0])).is_complete
    assert made.collect("root-1", (TARGETS[2],)).is_complete


def test_signatures_may_come_one_after_another_in_one_file(tmp_path: Path) -> None:
    made = start(tmp_path)
    request = read_request(made.waiting("root-1").read_bytes(), "x")
    for signer in (ROOT[2], TARGETS[1], ROOT[0], TARGETS[0]):
        request = read_request(write_request(sign(request, signer)), "x")
    (made.mail / "all.json").write_bytes(write_request(request))
    assert collect(made.workspace, [made.mail / "all.json"], NOW).is_complete


def test_progress_says_how_many_signed_and_who_may_still(ceremony: Ceremony) -> None:
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    [line] = progress(ceremony.collect("targets-2", TARGETS[:1]))
    assert line.startswith("targets: 1 of 2 signatures, waiting for 1 of ")
    assert all(one.public.fingerprint in line for one in TARGETS[1:])
    assert TARGETS[0].public.fingerprint not in line
    [line] = progress(ceremony.collect("targets-2", TARGETS[1:2]))
    assert line == "targets: 2 of 2 signatures"


def test_bundle_is_published_by_two_and_not_by_one_who_signs_twice(ceremony: Ceremony) -> None:
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    assert not ceremony.collect("targets-2", (TARGETS[0], TARGETS[0])).is_complete
    assert published(ceremony.workspace).walked.targets.version == 1
    assert ceremony.collect("targets-2", (TARGETS[2],)).is_complete
    walked = published(ceremony.workspace).walked
    assert (walked.targets.version, len(walked.signers)) == (2, 2)
    assert publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW) is None


def test_builder_alone_publishes_nothing(ceremony: Ceremony) -> None:
    request = publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    assert request is not None
    with pytest.raises(UsageError) as caught:
        sign(request, ceremony.workspace.key("builder"))
    assert code(caught) == "request.not-asked"
    with pytest.raises(NotTrustedError) as refused:
        write_signed(ceremony.workspace, request, NOW)
    assert code(refused) == "signature.threshold"
    assert published(ceremony.workspace).walked.targets.version == 1


def test_words_name_what_changes_from_the_signed_bytes(ceremony: Ceremony) -> None:
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    ceremony.collect("targets-2", TARGETS[:2])
    publish(ceremony.workspace, "toy", "1.1.0", b"[]", LATER)
    request = waiting(ceremony.workspace, "targets-3")
    assert request is not None
    told = "\n".join(explain(request))
    assert "targets version 3, issued 2026-01-03" in told
    assert "toy 1.0.0 becomes allowed, was current" in told
    assert "toy 1.1.0 becomes current, manifest\n      sha256:4f53cda1" in told
    ceremony.collect("targets-3", TARGETS[:2])
    revoke(ceremony.workspace, "toy", "1.0.0", LATER)
    request = waiting(ceremony.workspace, "targets-4")
    assert request is not None
    assert "toy 1.0.0 becomes REVOKED, was allowed" in "\n".join(explain(request))


def test_words_of_a_new_root_name_every_key(tmp_path: Path) -> None:
    request = waiting(start(tmp_path).workspace, "root-1")
    assert request is not None
    told = "\n".join(explain(request))
    assert all(one.public.fingerprint in told for one in (*ROOT, *TARGETS))
    assert "root: 2 of 3 must sign" in told


def test_second_bundle_while_the_first_waits_goes_into_one_request(ceremony: Ceremony) -> None:
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    again = publish(ceremony.workspace, "toy", "1.0.0", b"{}", LATER)
    assert again == waiting(ceremony.workspace, "targets-2")
    publish(ceremony.workspace, "other", "1.0.0", b"[]", NOW)
    ceremony.collect("targets-2", TARGETS[:2])
    assert len(published(ceremony.workspace).walked.targets.entries) == 2


def test_signature_for_what_was_asked_before_is_refused(ceremony: Ceremony) -> None:
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    old = ceremony.signed_by("targets-2", TARGETS[:2])
    publish(ceremony.workspace, "toy", "1.0.1", b"[]", NOW)
    with pytest.raises(NotTrustedError) as caught:
        collect(ceremony.workspace, old, NOW)
    assert code(caught) == "request.differs"


def test_request_of_a_stale_copy_of_the_repository_is_refused(ceremony: Ceremony, tmp_path: Path) -> None:
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    stale = ceremony.waiting("targets-2").read_bytes()
    ceremony.collect("targets-2", TARGETS[:2])
    ceremony.waiting("targets-2").write_bytes(stale)
    with pytest.raises(ApplianceError) as caught:
        ceremony.collect("targets-2", TARGETS[1:])
    assert (code(caught), caught.value.exit_code) == ("repository.stale", 1)
    assert "version 3" in caught.value.expected
    assert "version 2" in caught.value.found


def test_older_copy_of_the_repository_signs_nothing(ceremony: Ceremony) -> None:
    metadata = ceremony.workspace.repository.root / "metadata"
    before = {path: path.read_bytes() for path in metadata.iterdir()}
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    ceremony.collect("targets-2", TARGETS[:2])
    for path, data in before.items():
        path.write_bytes(data)
    with pytest.raises(ApplianceError) as caught:
        publish(ceremony.workspace, "toy", "1.0.1", b"{}", NOW)
    assert code(caught) == "repository.stale"
    assert "targets version 2" in caught.value.expected
    assert "targets version 1" in caught.value.found


def test_publication_that_was_killed_is_finished_by_the_next_run(
    ceremony: Ceremony, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    files = ceremony.signed_by("targets-2", TARGETS[:2])
    write = Medium.write

    def dies(self: Medium, path: str, data: bytes) -> bool:
        if path.endswith("timestamp.json"):
            raise KeyboardInterrupt
        return write(self, path, data)

    with monkeypatch.context() as patched:
        patched.setattr(Medium, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            collect(ceremony.workspace, files, NOW)
    assert (ceremony.workspace.path / JOURNAL).exists()
    assert published(ceremony.workspace).walked.targets.version == 2
    assert not (ceremony.workspace.path / JOURNAL).exists()


@pytest.mark.parametrize("status", ["current", "allowed", None])
def test_revocation_is_not_taken_back_however_many_sign(ceremony: Ceremony, status: str | None) -> None:
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    ceremony.collect("targets-2", TARGETS[:2])
    revoke(ceremony.workspace, "toy", "1.0.0", NOW)
    ceremony.collect("targets-3", TARGETS[:2])
    with pytest.raises(UsageError) as caught:
        publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    assert code(caught) == "bundle.revoked"
    assert revoke(ceremony.workspace, "toy", "1.0.0", NOW) is None
    # A builder who is bent on it writes the request by hand: no signer's machine signs it.
    request = publish(ceremony.workspace, "toy", "1.0.1", b"{}", NOW)
    assert request is not None
    [item] = request.items
    signed = load(to_file(item.body), "x")
    name = "bundles/toy/1.0.0/manifest.json"
    if status is None:
        del signed["targets"][name]
    else:
        signed["targets"][name]["custom"]["status"] = status
    forged = Request((Item.of_metadata(signed),), request.before)
    with pytest.raises(NotTrustedError) as refused:
        sign(forged, TARGETS[0])
    assert code(refused) == "bundle.unrevoked"


def test_request_that_hides_what_is_published_takes_no_revocation_back(ceremony: Ceremony) -> None:
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    ceremony.collect("targets-2", TARGETS[:2])
    revoke(ceremony.workspace, "toy", "1.0.0", NOW)
    ceremony.collect("targets-3", TARGETS[:2])
    request = publish(ceremony.workspace, "toy", "1.0.1", b"{}", NOW)
    assert request is not None
    signed = load(to_file(request.items[0].body), "x")
    signed["version"] = 1
    signed["targets"]["bundles/toy/1.0.0/manifest.json"]["custom"]["status"] = "current"
    forged = Request((Item.of_metadata(signed),), {"root": request.before["root"]})
    with pytest.raises(NotTrustedError) as refused:
        sign(read_request(write_request(forged), "x"), TARGETS[0])
    assert (code(refused), refused.value.exit_code) == ("request.refused", 4)


def test_signers_are_told_which_statements_hosts_must_find(ceremony: Ceremony) -> None:
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW, statements=["sbom", "provenance"])
    request = read_request(ceremony.waiting("targets-2").read_bytes(), "x")
    assert explain(request)[4].endswith(", must state provenance, sbom")
    ceremony.collect("targets-2", TARGETS[:2])
    asked = publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    assert asked is not None
    assert explain(asked)[2] == "    toy 1.0.0 stays current, manifest"
    assert explain(asked)[4] == "      2 bytes, must state NOTHING, was provenance, sbom"


@pytest.mark.parametrize(
    ("install_by", "what"), [("2031-06-01T00:00:00Z", "targets"), ("2036-06-01T00:00:00Z", "root")]
)
def test_nothing_is_signed_that_expires_before_it_is_to_be_installed(
    ceremony: Ceremony, install_by: str, what: str
) -> None:
    with pytest.raises(ApplianceError) as caught:
        publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW, install_by=install_by)
    assert (code(caught), caught.value.subject) == ("request.expires-early", what)
    assert waiting(ceremony.workspace, "targets-2") is None


def test_timestamp_that_expires_before_the_install_is_refused_when_it_is_made(
    ceremony: Ceremony, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW, install_by="2026-06-01T00:00:00Z")
    monkeypatch.setitem(tuf_metadata.LIFETIMES, "timestamp", 30)
    with pytest.raises(ApplianceError) as caught:
        ceremony.collect("targets-2", TARGETS[:2])
    assert "timestamp expires 2026-02-01T03:04:05Z" in caught.value.found
    assert published(ceremony.workspace).walked.targets.version == 1


def test_time_does_not_go_back(ceremony: Ceremony) -> None:
    with pytest.raises(ApplianceError) as caught:
        publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW - timedelta(days=1))
    assert code(caught) == "request.time-goes-back"


def test_signer_may_insist_on_the_trust_root_that_they_know(ceremony: Ceremony, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = start(tmp_path / "other", root=keys("other", 3))
    assert other.collect("root-1", (*keys("other", 2), *TARGETS[:2])).is_complete
    request = publish(other.workspace, "toy", "1.0.0", b"{}", NOW)
    assert request is not None
    check_trust(request, other.workspace.root_file.read_bytes())
    with pytest.raises(NotTrustedError) as caught:
        check_trust(request, ceremony.workspace.root_file.read_bytes())
    assert code(caught) == "request.other-root"


def test_development_workspace_signs_by_itself_and_a_ceremony_never_does(tmp_path: Path, ceremony: Ceremony) -> None:
    workspace, _ = create_development(tmp_path / "trials", NOW)
    request = publish(workspace, "toy", "1.0.0", b"{}", NOW)
    assert request is not None
    assert request.is_complete
    # Somebody leaves a signer's key where a development workspace has one.
    for one in TARGETS[:2]:
        from cryptography.hazmat.primitives import serialization

        pem = one.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (ceremony.workspace.path / "keys" / "targets.pem").touch(0o600)
        (ceremony.workspace.path / "keys" / "targets.pem").write_bytes(pem)
        request = publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
        assert request is not None
        assert request.signatures == {}


def test_unfinished_metadata_says_one_of_two_to_whoever_verifies(ceremony: Ceremony) -> None:
    from signing.chain import walk
    from signing.floors import Floors

    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    request = ceremony.collect("targets-2", TARGETS[:1])
    files = read_newest(ceremony.workspace, request, NOW)
    with pytest.raises(NotTrustedError) as caught:
        walk(ceremony.workspace.root_file.read_bytes(), lambda name, most: files.get(name), Floors())
    assert (code(caught), caught.value.subject) == ("signature.threshold", "2.targets.json")
    assert "1" in caught.value.found


def test_ceremony_needs_as_many_different_keys_as_must_sign(tmp_path: Path) -> None:
    people: Keys = keys("person-root", 3)
    publics = [one.public for one in people]
    for wrong in ([], publics[:1], [publics[0], publics[0]]):
        with pytest.raises(UsageError) as caught:
            begin(tmp_path / "w", (wrong, 2), (publics, 2), NOW)
        assert code(caught) == "ceremony.keys"
    assert not (tmp_path / "w").exists()


def test_rules_hold_for_a_good_request(ceremony: Ceremony) -> None:
    request = publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    assert request is not None
    check_rules(request)
