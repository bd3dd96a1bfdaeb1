"""Signatures in other people's formats: written, read, and never more than what they say."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.builder.assembly.attestation_writer import Attestation
from appliance.keys.signers.pem import create_key
from bundles.attestation.attestation_check import check_attestations, model_files
from bundles.attestation.dsse import Dsse, check_signers, pae, parse_envelope
from bundles.attestation.intoto import PAYLOAD_TYPE, STATEMENT_TYPE, parse_statement
from bundles.attestation.oms import parse_oms, verify_oms
from bundles.bundle import open_bundle
from bundles.chunks.check import check_all
from bundles.oci.layout import Layout
from bundles.stick.writing.writer import write_stick
from signing.digest import sha256
from signing.errors import NotTrustedError
from signing.floors import Floors
from signing.strictjson import load, to_file
from tests.attacks.harness import command
from tests.sim.tuf import key
from tests.toy import NOW, build_toy
from tests.vectors import vectors

Made = tuple[bytes, Path]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Made:
    workspace, path = build_toy(tmp_path_factory.mktemp("toy"))
    return workspace.root_file.read_bytes(), path


@pytest.fixture
def made(toy: Made, tmp_path: Path) -> Made:
    return toy[0], Path(shutil.copytree(toy[1], tmp_path / "bundle"))


def check(made: Made) -> list[str]:
    found = open_bundle(made[1], made[0], Floors(), NOW)
    check_all(Layout(made[1]), found)
    return [one.format for one in check_attestations(Layout(made[1]), (found,))]


def refuse(act: Callable[[], object], code: str) -> NotTrustedError:
    with pytest.raises(NotTrustedError) as caught:
        act()
    assert caught.value.code == code, str(caught.value)
    return caught.value


def files(made: Made, form: str) -> Path:
    [path] = made[1].glob(f"attestations/*/*.{form}")
    return path


def test_a_bundle_carries_one_signature_for_each_model_and_one_for_its_manifest(made: Made) -> None:
    assert sorted(check(made)) == ["dsse", "oms"]


def test_a_stick_carries_them_too(made: Made, tmp_path: Path) -> None:
    write_stick(Layout(made[1]), open_bundle(made[1], made[0], Floors(), NOW), tmp_path / "stick")
    assert sorted(check((made[0], tmp_path / "stick"))) == ["dsse", "oms"]


def test_a_bundle_with_one_that_does_not_hold_gets_on_no_stick(made: Made, tmp_path: Path) -> None:
    (tmp_path / "root.json").write_bytes(made[0])
    written: tuple[str | Path, ...] = ("stick", "write", made[1], tmp_path / "stick", "--trust", tmp_path / "root.json")
    path = next((made[1] / "attestations").rglob("*.oms"))
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data.replace(b"a", b"b", 1))
    assert command(*written).code == 4
    assert not (tmp_path / "stick").exists()
    path.write_bytes(data)
    assert command(*written).code == 0


def test_without_them_a_bundle_is_what_it_was(made: Made) -> None:
    shutil.rmtree(made[1] / "attestations")
    assert check(made) == []


@pytest.mark.parametrize("form", ["oms", "dsse"])
def test_every_changed_byte_is_refused_and_named(made: Made, form: str) -> None:
    path = files(made, form)
    data = path.read_bytes()
    found = open_bundle(made[1], made[0], Floors(), NOW)
    for at in range(0, len(data), 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(NotTrustedError) as caught:
            check_attestations(Layout(made[1]), (found,))
        assert str(path.relative_to(made[1])) in caught.value.subject


def test_another_name_in_the_folder_is_refused(made: Made) -> None:
    (made[1] / "attestations" / "note.txt").write_text("x")
    assert "note.txt" in refuse(lambda: check(made), "layout.unlisted").subject


def test_a_signature_by_a_stranger_is_refused(made: Made, tmp_path: Path) -> None:
    thief = create_key(tmp_path / "thief.pem")
    path = files(made, "dsse")
    envelope = load(path.read_bytes(), "x")
    payload = base64.b64decode(envelope["payload"])
    name, data = Attestation(sha256(b""), "dsse", payload).wrap(thief.public, thief.sign(pae(PAYLOAD_TYPE, payload)))
    (path.parent / Path(name).name).write_bytes(data)
    refuse(lambda: check(made), "attestation.refused")


def test_a_good_signature_under_the_name_of_another_subject_is_refused(made: Made) -> None:
    path = files(made, "oms")
    other = made[1] / "attestations" / ("0" * 64) / path.name
    other.parent.mkdir()
    path.rename(other)
    path.parent.rmdir()
    refuse(lambda: check(made), "attestation.refused")


def signed(statement: dict[str, Any], owner: str = "signer") -> tuple[Dsse, bytes]:
    payload = to_file(statement)
    signature = key(owner).sign(pae(PAYLOAD_TYPE, payload))
    return Dsse(PAYLOAD_TYPE, payload, (("", signature),)), payload


STATEMENT: dict[str, Any] = {
    "_type": STATEMENT_TYPE,
    "subject": [{"name": "x", "digest": {"sha256": "0" * 64}}],
    "predicateType": "https://example.org/v1",
    "predicate": {},
}


def test_pae_is_the_one_of_the_specification() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_one_key_counts_once_and_two_count_twice() -> None:
    envelope, payload = signed(STATEMENT)
    keys = [key("signer").public, key("second").public]
    assert check_signers(envelope, keys, 1, "x") == (keys[0],)
    refuse(lambda: check_signers(envelope, keys, 2, "x"), "signature.threshold")
    [pair] = envelope.signatures
    refuse(lambda: check_signers(Dsse(PAYLOAD_TYPE, payload, (pair, pair)), keys, 2, "x"), "envelope.refused")
    second = ("", key("second").sign(pae(PAYLOAD_TYPE, payload)))
    assert check_signers(Dsse(PAYLOAD_TYPE, payload, (pair, second)), keys, 2, "x") == tuple(keys)
    stranger = ("", key("stranger").sign(pae(PAYLOAD_TYPE, payload)))
    refuse(lambda: check_signers(Dsse(PAYLOAD_TYPE, payload, (pair, stranger)), keys, 1, "x"), "signature.stranger")


def test_a_threshold_of_nobody_still_needs_somebody() -> None:
    refuse(lambda: check_signers(Dsse(PAYLOAD_TYPE, b"x", ()), [key("signer").public], 0, "x"), "signature.threshold")


def test_a_key_id_may_not_name_another_key() -> None:
    envelope, payload = signed(STATEMENT)
    [(_, signature)] = envelope.signatures
    keys = [key("signer").public, key("second").public]
    named = Dsse(PAYLOAD_TYPE, payload, ((keys[1].key_id, signature),))
    refuse(lambda: check_signers(named, keys, 1, "x"), "signature.invalid")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"payloadType": "text/plain"}, "envelope.payload-type"),
        ({"payload": "eA"}, "envelope.refused"),
        ({"payload": "e-A="}, "envelope.refused"),
        ({"payload": "eB=="}, "envelope.refused"),
        ({"payload": ""}, "envelope.refused"),
        ({"signatures": []}, "envelope.refused"),
        ({"signatures": [{"sig": "eA==", "x": 1}]}, "envelope.refused"),
        ({"signatures": [{"sig": "eA==", "keyid": 3}]}, "envelope.refused"),
        ({"x": 1}, "envelope.refused"),
    ],
)
def test_an_envelope_of_another_shape_is_refused(change: dict[str, Any], code: str) -> None:
    good = {"payload": "eA==", "payloadType": PAYLOAD_TYPE, "signatures": [{"sig": "eA==", "keyid": ""}]}
    parse_envelope(good, PAYLOAD_TYPE, "x")
    refuse(lambda: parse_envelope({**good, **change}, PAYLOAD_TYPE, "x"), code)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=200), st.text("abc/+-.", min_size=1, max_size=20))
def test_what_we_wrap_reads_back_and_verifies(payload: bytes, kind: str) -> None:
    signature = key("signer").sign(pae(kind, payload))
    spelled = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
    envelope = parse_envelope(load(to_file(spelled), "x"), kind, "x")
    assert (envelope.payload, len(check_signers(envelope, [key("signer").public], 1, "x"))) == (payload, 1)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "statement.refused"),
        ({"predicateType": "https://example.org/v2"}, "statement.predicate-type"),
        ({"subject": []}, "statement.refused"),
        ({"subject": STATEMENT["subject"] * 2}, "statement.refused"),
        ({"subject": [{"name": "x", "digest": {"sha512": "0" * 128}}]}, "statement.refused"),
        ({"subject": [{"name": "x", "digest": {"sha256": "0" * 63}}]}, "digest.malformed"),
        ({"predicate": []}, "statement.refused"),
        ({"x": 1}, "statement.refused"),
    ],
)
def test_a_statement_of_another_shape_is_refused(change: dict[str, Any], code: str) -> None:
    kind = "https://example.org/v1"
    assert parse_statement(to_file(STATEMENT), kind, "x").subjects == {"x": "0" * 64}
    refuse(lambda: parse_statement(to_file({**STATEMENT, **change}), kind, "x"), code)


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1), st.binary(max_size=4).map(sha256), min_size=1, max_size=5))
def test_a_statement_that_is_written_reads_back(subjects: dict[str, str]) -> None:
    spelled = [{"name": name, "digest": {"sha256": digest}} for name, digest in subjects.items()]
    read = parse_statement(to_file({**STATEMENT, "subject": spelled}), "https://example.org/v1", "x")
    assert dict(read.subjects) == subjects


def test_the_signature_covers_exactly_the_files_of_the_model(made: Made) -> None:
    contents = open_bundle(made[1], made[0], Floors(), NOW).value.contents
    model = parse_oms(files(made, "oms").read_bytes(), "x").model
    [file] = contents.of_kind("model")
    assert dict(model.files) == model_files(contents, contents.models[0]) == {"toy.gguf": file.sha256}


@pytest.mark.parametrize("name", ["key", "certificate", "sigstore"])
def test_valid_vectors_of_the_specification_are_read(name: str) -> None:
    path = vectors("oms") / "test-vectors" / "v1.0" / "valid" / f"{name}.bundle.json"
    assert parse_oms(path.read_bytes(), name).model.files


def test_every_invalid_vector_of_the_specification_is_refused() -> None:
    paths = sorted((vectors("oms") / "test-vectors" / "v1.0").glob("invalid*/*.json"))
    assert len(paths) == 5
    for path in paths:
        with pytest.raises(NotTrustedError):
            parse_oms(path.read_bytes(), path.name)


@pytest.mark.parametrize("name", ["certificate", "sigstore"])
def test_a_certificate_vouches_for_nothing_here(name: str) -> None:
    path = vectors("oms") / "test-vectors" / "v1.0" / "valid" / f"{name}.bundle.json"
    refuse(lambda: verify_oms(path.read_bytes(), [key("signer").public], name), "statement.refused")


@pytest.mark.parametrize("version", ["v1.0.0", "v1.0.1", "v1.1.0"])
def test_signatures_by_earlier_releases_of_the_reference_tool_verify(version: str) -> None:
    from tests.schemes import P384Key

    folder = vectors("oms") / "model-transparency" / f"{version}-elliptic-key"
    signer = P384Key.from_pem((folder.parent / "signing-key-pub.pem").read_bytes())
    data = (folder / "model.sig").read_bytes()
    model, by = verify_oms(data, [signer], "model.sig")
    assert by is signer
    for name, digest in model.files.items():
        assert sha256((folder / ("signme-1" if name == "." else name)).read_bytes()) == digest
    changed = json.loads(data)
    payload = base64.b64decode(changed["dsseEnvelope"]["payload"]).replace(b"signme-1", b"signme-9")
    changed["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(NotTrustedError):
        verify_oms(json.dumps(changed).encode(), [signer], "model.sig")
