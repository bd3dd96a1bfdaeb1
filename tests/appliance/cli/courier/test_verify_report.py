"""What `appliance verify` reports of each kind of subject, and the record that it writes."""

from __future__ import annotations

import json
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.host.verification.verification_record import PAYLOAD_TYPE, read_evidence, write_evidence
from appliance.keys.signers.host_key import host_key, host_public, make_host_key
from appliance.keys.signers.pem import create_key
from appliance.keys.workspace import Workspace
from bundles.bundle import open_bundle
from bundles.contents.contents import Contents
from signing.errors import NotTrustedError, UsageError
from signing.floors import Floors
from signing.strictjson import load, to_file
from tests.appliance.sim_host import SimHost, new_host
from tests.attacks.harness import Answer, command
from tests.toy import NOW, build_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path]:
    return build_toy(tmp_path_factory.mktemp("toy") / "workspace")


@dataclass
class Copy:
    """A copy of the toy bundle that a test may damage."""

    path: Path
    workspace: Path

    def verify(self, *more: str | Path) -> Answer:
        return command("verify", self.path, "--workspace", self.workspace, *more)

    def contents(self) -> Contents:
        root = (self.workspace / "trust/root.json").read_bytes()
        return open_bundle(self.path, root, Floors(), NOW).value.contents

    def chunks(self, kind: str) -> list[Path]:
        digests = [chunk.sha256 for file in self.contents().of_kind(kind) for chunk in file.chunks]
        return [self.path / "blobs/sha256" / digest for digest in digests]


@pytest.fixture
def bundle(toy: tuple[Workspace, Path], tmp_path: Path) -> Copy:
    return Copy(Path(shutil.copytree(toy[1], tmp_path / "bundle")), toy[0].path)


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    made = new_host(tmp_path_factory.mktemp("host"))
    made.install()
    make_host_key(made.prefix.trust)
    return made


def test_good_bundle_shows_who_signed_how_fresh_and_how_much(bundle: Copy) -> None:
    answer = bundle.verify("--json")
    report = json.loads(answer.out)
    assert answer.code == 0
    assert (report["verified"], report["kind"], report["exit_code"], report["errors"]) == (True, "bundle", 0, [])
    assert (len(report["signers"]), report["threshold"], report["asked"]) == (1, 1, 1)
    assert report["files"] == len(bundle.contents().files)
    assert report["bytes"] > 0
    assert report["expires"]["is_expired"] is False
    assert "signed by  1 of 1 keys, 1 needed; development root" in bundle.verify().out


def test_json_on_failure_holds_every_difference_and_what_was_expected(bundle: Copy) -> None:
    licence, playbook = bundle.chunks("licence")[0], bundle.chunks("playbook")[0]
    files = len(bundle.contents().files)
    licence.write_bytes(b"x" * licence.stat().st_size)
    playbook.unlink()
    answer = bundle.verify("--json")
    report = json.loads(answer.out)
    assert (answer.code, report["verified"], report["exit_code"]) == (3, False, 3)
    assert {error["code"] for error in report["errors"]} == {"contents.file-changed", "blob.missing"}
    assert {error["exit_code"] for error in report["errors"]} == {3}
    assert any("licences/licence.txt" in error["subject"] for error in report["errors"])
    assert (report["name"], report["files"], len(report["signers"])) == ("toy", files, 1)
    assert "contents.file-changed" in answer.talk
    assert "hint:" in answer.talk


@pytest.mark.parametrize("name", ["timestamp.json", "2.targets.json", "1.root.json"])
def test_json_answers_where_nothing_is_trusted(bundle: Copy, name: str) -> None:
    path = bundle.path / "metadata" / name
    path.write_bytes(path.read_bytes().replace(b'"sig":"30', b'"sig":"31'))
    answer = bundle.verify("--json")
    report = json.loads(answer.out)
    assert (answer.code, report["verified"], report["exit_code"]) == (4, False, 4)
    assert "signers" not in report
    assert name in report["errors"][0]["subject"]


def test_json_answers_where_there_is_nothing(tmp_path: Path, toy: tuple[Workspace, Path]) -> None:
    answer = command("verify", tmp_path / "absent", "--workspace", toy[0].path, "--json")
    assert (answer.code, json.loads(answer.out)["errors"][0]["code"]) == (2, "bundle.not-found")


def test_installed_release_is_found_by_its_path_and_without_one(sim: SimHost) -> None:
    prefix = sim.prefix.root
    for path in ([], [sim.prefix.current], [os.path.realpath(sim.prefix.current)]):
        answer = command("verify", *path, "--prefix", prefix, "--json")
        report = json.loads(answer.out)
        assert (answer.code, report["kind"], report["verified"]) == (0, "release", True), answer.talk


def test_release_of_another_tree_is_not_judged_by_the_root_that_it_brings(sim: SimHost, tmp_path: Path) -> None:
    answer = command("verify", os.path.realpath(sim.prefix.current), "--prefix", tmp_path / "other")
    assert (answer.code, answer.out) == (2, "")
    assert f"appliance verify --prefix {sim.prefix.root}" in answer.talk


def test_single_model_is_checked_against_the_installed_release(sim: SimHost, tmp_path: Path) -> None:
    [placed] = sim.prefix.models.rglob("*.gguf")
    copy = Path(shutil.copy(placed, tmp_path / "carried-about.gguf"))
    for path in (placed, copy):
        answer = command("verify", path, "--prefix", sim.prefix.root, "--json")
        report = json.loads(answer.out)
        assert (answer.code, report["kind"], report["files"], report["bytes"]) == (0, "model", 1, path.stat().st_size)
    copy.chmod(0o644)
    data = bytearray(copy.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    assert command("verify", copy, "--prefix", sim.prefix.root).code == 3
    copy.write_bytes(data + b"more")
    answer = command("verify", copy, "--prefix", sim.prefix.root)
    assert (answer.code, "model.unknown" in answer.talk) == (4, True)


def test_single_model_is_checked_against_a_bundle_that_is_named(toy: tuple[Workspace, Path], tmp_path: Path) -> None:
    workspace, made = toy
    model = workspace.path / "toy.gguf"
    arguments = ("verify", model, "--bundle", made, "--workspace", workspace.path)
    assert command(*arguments).code == 0
    damaged = tmp_path / "toy.gguf"
    damaged.write_bytes(model.read_bytes()[:-1] + b"!")
    assert command("verify", damaged, *arguments[2:]).code == 3


def test_evidence_is_signed_by_the_host_and_checked_by_its_fingerprint(sim: SimHost, tmp_path: Path) -> None:
    record = tmp_path / "evidence.json"
    assert command("verify", "--prefix", sim.prefix.root, "--evidence", record).code == 0
    shown = json.loads(command("trust", "show", "--prefix", sim.prefix.root, "--json").out)
    answer = command("evidence", "check", record, "--fingerprint", shown["host_key"])
    assert answer.code == 0, answer.talk
    assert f"by host    {shown['host_key']}" in answer.out
    assert "signed by  1 of 1" in answer.out
    other = create_key(tmp_path / "other.pem").public.fingerprint
    assert command("evidence", "check", record, "--fingerprint", other).code == 4


def test_evidence_for_a_folder_that_is_not_there_is_refused_before_anything_is_read(
    sim: SimHost, tmp_path: Path
) -> None:
    answer = command("verify", "--prefix", sim.prefix.root, "--evidence", tmp_path / "none" / "evidence.json")
    assert (answer.code, answer.out) == (2, "")
    assert "evidence.no-folder" in answer.talk
    assert not (tmp_path / "none").exists()


def test_status_answers_programs_on_failure_too(sim: SimHost, tmp_path: Path) -> None:
    report = json.loads(command("status", "--prefix", sim.prefix.root, "--json").out)
    assert (report["exit_code"], report["errors"]) == (0, [])
    answer = command("status", "--prefix", tmp_path / "none", "--json")
    report = json.loads(answer.out)
    assert (answer.code, report["exit_code"]) == (2, 2)
    assert [problem["code"] for problem in report["errors"]] == ["release.none"]


def test_evidence_is_written_where_something_failed_too(bundle: Copy, sim: SimHost, tmp_path: Path) -> None:
    bundle.chunks("licence")[0].unlink()
    record = tmp_path / "evidence.json"
    root = bundle.workspace / "trust/root.json"
    answer = bundle.verify("--evidence", record, "--prefix", sim.prefix.root, "--trust", root)
    assert answer.code == 3
    host = host_public(sim.prefix.trust)
    assert host is not None
    payload = read_evidence(record.read_bytes(), host.fingerprint, "x").payload
    assert payload["report"]["verified"] is False
    assert payload["report"]["errors"][0]["code"] == "blob.missing"
    answer = command("evidence", "check", record, "--fingerprint", host.fingerprint)
    assert (answer.code, "FAILED" in answer.out, "blob.missing" in answer.out) == (0, True, True)


def test_without_a_host_key_the_record_is_marked_as_not_signed(bundle: Copy, tmp_path: Path) -> None:
    record = tmp_path / "evidence.json"
    answer = bundle.verify("--evidence", record, "--prefix", tmp_path / "no-host")
    assert answer.code == 0
    assert "WITHOUT A SIGNATURE" in answer.talk
    answer = command("evidence", "check", record, "--fingerprint", "0" * 64)
    assert (answer.code, "evidence.unsigned" in answer.talk) == (4, True)


def test_every_change_to_a_record_is_refused(tmp_path: Path) -> None:
    key = create_key(tmp_path / "host.pem")
    data = write_evidence({"verified": True}, key, NOW, "1")
    assert read_evidence(data, key.public.fingerprint, "x").payload["report"] == {"verified": True}
    for at in range(len(data)):
        for changed in (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], data[:at] + data[at + 1 :]):
            with pytest.raises(NotTrustedError):
                read_evidence(changed, key.public.fingerprint, "x")


def test_record_of_another_type_is_refused(tmp_path: Path) -> None:
    key = create_key(tmp_path / "host.pem")
    value = load(write_evidence({}, key, NOW, "1"), "x")
    value["payloadType"] = PAYLOAD_TYPE.replace("evidence", "receipt")
    with pytest.raises(NotTrustedError) as caught:
        read_evidence(to_file(value), key.public.fingerprint, "x")
    assert caught.value.code == "envelope.payload-type"


def test_host_key_is_its_owners_alone_and_stays(tmp_path: Path) -> None:
    assert (host_key(tmp_path), host_public(tmp_path)) == (None, None)
    old_mask = os.umask(0)
    try:
        made = make_host_key(tmp_path)
    finally:
        os.umask(old_mask)
    assert stat.S_IMODE((tmp_path / "host.pem").stat().st_mode) == 0o600
    assert make_host_key(tmp_path) == made == host_public(tmp_path)
    (tmp_path / "host.pem").chmod(0o644)
    with pytest.raises(UsageError) as caught:
        make_host_key(tmp_path)
    assert caught.value.code == "key.exposed"


def test_host_key_that_was_half_made_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / ".host.pem.partial").write_text("half")
    assert make_host_key(tmp_path) == host_public(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host.pem", "host.pub"]


def test_host_key_is_in_no_answer_and_no_record(sim: SimHost, tmp_path: Path) -> None:
    record = tmp_path / "evidence.json"
    secret = (sim.prefix.trust / "host.pem").read_text().splitlines()[1]
    for words in (("verify", "--evidence", str(record), "--json"), ("trust", "show", "--json"), ("trust", "show")):
        answer = command(*words, "--prefix", sim.prefix.root)
        assert secret not in answer.out + answer.talk
    assert secret not in record.read_text()


def test_a_path_that_is_not_there_is_a_wrong_command_also_where_no_root_is_pinned(tmp_path: Path) -> None:
    answer = command("verify", tmp_path / "none", "--prefix", tmp_path / "host")
    assert (answer.code, "bundle.not-found" in answer.talk) == (2, True)


def test_a_file_without_an_installed_release_is_pointed_to_the_option_bundle(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    answer = command("verify", tmp_path / "a.gguf", "--prefix", tmp_path / "host")
    assert (answer.code, "add: --bundle DIR" in answer.talk) == (2, True)
