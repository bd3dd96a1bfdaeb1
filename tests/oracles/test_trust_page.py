"""Every command of TRUST.md, taken from the page itself, does what the page promises."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.builder.assembly.attestation_writer import attestations
from appliance.host.verification.verification_record import write_evidence
from appliance.keys.signers.host_key import host_key, make_host_key
from appliance.keys.signers.pem import load_public
from bundles.attestation.required_statements import PROVENANCE as PROVENANCE_STATEMENT
from bundles.chunks.copy import copy_file
from bundles.chunks.stream import ChunkStream
from signing.digest import sha256
from signing.strictjson import load, to_file
from tests.attacks.harness import Stick, make_stick
from tests.oracles.__main__ import MODEL_SIGNING
from tests.oracles.ready import oracle
from tests.pages.blocks import TOP, read_blocks
from tests.sim.tuf import STRANGERS, USUAL, Keys, TufRepository
from tests.toy import NOW, build_toy

PAGE = "signing/TRUST.md"
HOST, TOOLS = "9. The host key, and what a host states", "11. Checking a bundle with other people's tools"
# Whatever fails, the page's own server is not left behind.
TIDY = """server=; trap '[ -z "$server" ] || kill "$server" 2>/dev/null || :' EXIT"""
KEYS, SIGNATURES, STATUS, CLIENT, BYTES, MODEL, PROVENANCE = range(7)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stick that two people have signed, and beside it a folder with the pinned root, a model and a host's record."""
    folder = tmp_path_factory.mktemp("page")
    _, bundle = build_toy(folder / "workspace")
    signed = make_stick(bundle, folder)
    attest(signed, signed.repository.signers())
    beside = folder / "auditor"
    beside.mkdir()
    shutil.copy(signed.root_file, beside / "root.json")
    contents = signed.open().value.contents
    [model] = contents.of_kind("model")
    copy_file(model, signed.layout.open_chunk, beside / "MODEL" / "toy.gguf")
    host = folder / "host"
    make_host_key(host)
    shutil.copy(host / "host.pub", beside)
    (beside / "today.json").write_bytes(write_evidence({"verified": True, "path": "a"}, host_key(host), NOW, "1.0"))
    return folder


def attest(stick: Stick, people: Keys) -> None:
    """Put the signatures of these people into `attestations/`."""
    contents = stick.open().value.contents
    provenance = ChunkStream(stick.layout, contents.by_path[PROVENANCE_STATEMENT.path]).read()
    for one in attestations(contents, stick.blob(stick.manifest).read_bytes(), provenance):
        for signer in people:
            path, data = one.wrap(signer.public, signer.sign(one.message))
            (stick.path / path).parent.mkdir(parents=True, exist_ok=True)
            (stick.path / path).write_bytes(data)


@pytest.fixture
def auditor(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "stick", tmp_path / "stick")
    return shutil.copytree(made / "auditor", tmp_path / "auditor")


@pytest.fixture
def stick(auditor: Path) -> Stick:
    """The auditor's stick, whose metadata can be changed and signed again."""
    repository = TufRepository()
    found = Stick(auditor.parent / "stick", repository, auditor / "root.json")
    found.publish()
    return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def type_in(auditor: Path, *lines: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Type lines of the page in the folder, with the stick in its place; waiting for the server is surer than sleep."""
    port = str(free_port())
    ready = (
        f"until python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}))' 2>&-; do sleep 0.1; done"
    )
    script = "\n".join((TIDY, *lines)).replace("/media/stick", str(auditor.parent / "stick")).replace("smollm2", "toy")
    script = script.replace("8000", port).replace("sleep 3", ready)
    env = {**os.environ, "PATH": f"{path}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(["sh", "-ec", script], cwd=auditor, env=env, capture_output=True, text=True, timeout=120)


def tools(*wanted: int) -> list[str]:
    """The lines of blocks of section 11."""
    blocks = read_blocks(PAGE, TOOLS)
    assert len(blocks) == 7
    return [line for number in wanted for line in blocks[number].commands]


def test_every_block_of_commands_on_the_page_is_run() -> None:
    assert {block.heading for block in read_blocks(PAGE)} == {
        "7. A bare host",
        HOST,
        TOOLS,
    }  # section 7 has tests/bundles/bare_host


def test_a_fingerprint_is_what_openssl_and_sha256sum_print(auditor: Path) -> None:
    [line] = re.findall(r"`(openssl [^`]*)`", (TOP / PAGE).read_text())
    assert (
        type_in(auditor, line.replace("key.pem", "host.pub")).stdout.split()[0]
        == load_public(auditor / "host.pub").fingerprint
    )


def test_a_record_of_a_host_is_checked_with_openssl(auditor: Path) -> None:
    [block] = read_blocks(PAGE, HOST)
    done = type_in(auditor, *block.commands)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Verified OK\n{")
    assert '"report":{"path":"a","verified":true}' in done.stdout
    text = (auditor / "today.json").read_text()
    at = text.index('"payload":"') + 40
    (auditor / "today.json").write_text(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])
    done = type_in(auditor, *block.commands)
    assert (done.returncode != 0, "Verified OK" in done.stdout) == (True, False)


def test_keys_and_the_signatures_over_targets(auditor: Path) -> None:
    done = type_in(auditor, *tools(KEYS, SIGNATURES, STATUS))
    assert done.returncode == 0, done.stderr
    fingerprints = {line.split()[0] for line in done.stdout.splitlines() if line.endswith("  -")}
    assert fingerprints == {one.public.fingerprint for one in USUAL.root}
    for role, count in (("root", 2), ("timestamp", 1), ("snapshot", 1), ("targets", 2)):
        assert f"{role}: {count} keys have signed, {count} must\n" in done.stdout
    manifest = sha256(next((auditor.parent / "stick" / "targets").rglob("*.json")).read_bytes())
    assert done.stdout.endswith(f"current {manifest}\n")


@pytest.mark.parametrize("file", ["1.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"])
def test_changed_metadata_are_not_signed(stick: Stick, auditor: Path, file: str) -> None:
    assert type_in(auditor, *tools(KEYS, SIGNATURES)).returncode == 0
    path = auditor / "root.json" if "root" in file else stick.path / "metadata" / file
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"expires":"2', b'"expires":"3'))
    assert path.read_bytes() != data
    assert type_in(auditor, *tools(KEYS, SIGNATURES)).returncode != 0


def signed_twice(stick: Stick) -> None:
    repository = stick.repository
    repository.edit(repository.targets_name, lambda _: None, by=repository.people.targets[:1])
    value = load(repository.files[repository.targets_name], "targets")
    value["signatures"] *= 2
    repository.put_targets(to_file(value), repository.targets_version)


def signed_by_other_roles(stick: Stick) -> None:
    repository = stick.repository
    others = (repository.people.targets[0], *repository.people.root, repository.people.builder)
    repository.edit(repository.targets_name, lambda _: None, by=others)


def signed_by_strangers(stick: Stick) -> None:
    stick.repository.edit(stick.repository.targets_name, lambda _: None, by=STRANGERS.targets)


@pytest.mark.parametrize(
    ("attack", "counted"), [(signed_twice, 1), (signed_by_other_roles, 1), (signed_by_strangers, 0)]
)
def test_only_distinct_keys_of_the_targets_role_count(
    stick: Stick, auditor: Path, attack: Callable[[Stick], None], counted: int
) -> None:
    attack(stick)
    stick.save()
    done = type_in(auditor, *tools(KEYS, SIGNATURES))
    assert done.returncode != 0
    assert f"snapshot: 1 keys have signed, 1 must\ntargets.json: OK\ntargets: {counted} keys have signed" in done.stdout


def test_planted_file_with_a_higher_number_is_not_looked_at(stick: Stick, auditor: Path) -> None:
    old = stick.repository.files[stick.repository.targets_name]
    stick.publish("revoked")
    (stick.path / "metadata" / "99.targets.json").write_bytes(old)
    done = type_in(auditor, *tools(KEYS, SIGNATURES, STATUS))
    assert (done.returncode, done.stdout.splitlines()[-1].split()[0]) == (0, "revoked")


def test_file_that_the_snapshot_does_not_name_is_refused(stick: Stick, auditor: Path) -> None:
    old = stick.repository.files[stick.repository.targets_name]
    stick.publish("revoked")
    (stick.path / "metadata" / stick.repository.targets_name).write_bytes(old)
    done = type_in(auditor, *tools(KEYS, SIGNATURES, STATUS))
    assert (done.returncode != 0, "targets.json: FAILED" in done.stdout) == (True, True)


@pytest.mark.ci
def test_a_tuf_client_and_every_byte(auditor: Path) -> None:
    done = type_in(auditor, *tools(CLIENT, BYTES))
    assert (done.returncode, done.stderr) == (0, "")
    [fetched] = (auditor / "fetched").iterdir()
    [manifest] = (auditor.parent / "stick" / "targets").rglob("*.manifest.json")
    assert fetched.read_bytes() == manifest.read_bytes()
    blobs = sorted((auditor.parent / "stick" / "blobs" / "sha256").iterdir())
    blob = next(one for one in blobs if one.stat().st_size == 4 or one.stat().st_size < 100)
    data = blob.read_bytes()
    blob.write_bytes(data + b"x")
    assert type_in(auditor, *tools(BYTES)).returncode != 0
    blob.write_bytes(data)
    for planted in (blob.parent / ("0" * 64), blob.parent / ".hidden", blob.parent.parent / "more"):
        planted.write_bytes(b"planted")
        assert type_in(auditor, *tools(BYTES)).returncode != 0
        planted.unlink()
    assert type_in(auditor, *tools(BYTES)).returncode == 0
    blob.rename(auditor / "elsewhere")
    blob.symlink_to(auditor / "elsewhere")
    done = type_in(auditor, *tools(BYTES))
    assert (done.returncode != 0, f"> l sha256/{blob.name}" in done.stdout) == (True, True)


@pytest.mark.ci
def test_second_stick_is_not_judged_by_what_the_first_one_left(auditor: Path, tmp_path: Path) -> None:
    every = tools(KEYS, SIGNATURES, STATUS, CLIENT, BYTES, PROVENANCE)
    first = type_in(auditor, *every)
    assert first.returncode == 0, first.stderr
    _, bundle = build_toy(tmp_path / "second", note="another note")
    shutil.rmtree(tmp_path / "stick")
    second = make_stick(bundle, tmp_path)
    attest(second, second.repository.signers())
    again = type_in(auditor, *every)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("Verified OK") == 2
    [fetched] = (auditor / "fetched").iterdir()
    assert sha256(fetched.read_bytes()) == second.manifest
    (tmp_path / "stick" / "metadata" / "timestamp.json").unlink()
    assert type_in(auditor, *tools(KEYS, SIGNATURES)).returncode != 0


@pytest.mark.ci
def test_a_tuf_client_refuses_it_under_another_root(auditor: Path, tmp_path: Path) -> None:
    other, _ = build_toy(tmp_path / "other")
    shutil.copy(other.root_file, auditor / "root.json")
    done = type_in(auditor, *tools(CLIENT))
    assert done.returncode != 0
    assert not any((auditor / "fetched").iterdir())


@pytest.mark.ci
def test_the_provenance(stick: Stick, auditor: Path) -> None:
    done = type_in(auditor, *tools(KEYS, CLIENT, PROVENANCE))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Verified OK\n1\n" * 2)
    shutil.rmtree(stick.path / "attestations")
    attest(stick, (USUAL.root[0], USUAL.builder, USUAL.targets[2]))
    assert type_in(auditor, *tools(KEYS, PROVENANCE)).stdout.count("Verified OK") == 1


@pytest.mark.ci
def test_a_model(stick: Stick, auditor: Path) -> None:
    program = str(oracle(MODEL_SIGNING) / "bin")
    done = type_in(auditor, *tools(KEYS, MODEL), path=program)
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("Verification succeeded") == 2
    shutil.rmtree(stick.path / "attestations")
    attest(stick, (USUAL.root[0], USUAL.builder, USUAL.targets[2]))
    done = type_in(auditor, *tools(KEYS, MODEL), path=program)
    assert (done.stdout + done.stderr).count("Verification succeeded") == 1
    [folder] = {path.parent for path in (stick.path / "attestations").rglob("*.oms")}
    (auditor / "MODEL" / "toy.gguf").write_bytes(b"another")
    assert "Verification" not in type_in(auditor, *tools(KEYS, MODEL), path=program).stdout
    folder.rename(folder.with_name(sha256(bytes.fromhex(sha256(b"another")))))
    done = type_in(auditor, *tools(KEYS, MODEL), path=program)
    assert ("REFUSED" in done.stdout, "Verification succeeded" in done.stdout + done.stderr) == (True, False)
