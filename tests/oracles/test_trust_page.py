"""Every command of TRUST.md, taken from the page itself, does what the page promises."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.host.verification.verification_record import write_evidence
from appliance.keys.signers.host_key import host_key, make_host_key
from appliance.keys.signers.pem import load_public
from bundles.bundle import open_bundle
from bundles.chunks.copy import copy_file
from bundles.oci.layout import Layout
from signing.floors import Floors
from tests.oracles.__main__ import MODEL_SIGNING
from tests.oracles.ready import oracle
from tests.pages.blocks import TOP, read_blocks
from tests.toy import NOW, build_toy

PAGE = "signing/TRUST.md"
HOST, TOOLS = "9. The host key, and what a host states", "11. Checking a bundle with other people's tools"
# Whatever fails, the page's own server is not left behind.
TIDY = """server=; trap '[ -z "$server" ] || kill "$server" 2>/dev/null || :' EXIT"""
KEYS, SIGNATURES, CLIENT, BYTES, MODEL, PROVENANCE = range(6)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stick, and beside it a folder with the pinned root, a model, and a record of a host with its key."""
    folder = tmp_path_factory.mktemp("page")
    workspace, bundle = build_toy(folder / "workspace")
    beside = folder / "auditor"
    beside.mkdir()
    shutil.copytree(bundle, folder / "stick")
    shutil.copy(workspace.root_file, beside / "root.json")
    contents = open_bundle(bundle, workspace.root_file.read_bytes(), Floors(), NOW).value.contents
    [model] = contents.of_kind("model")
    copy_file(model, Layout(bundle).open_chunk, beside / "MODEL" / "toy.gguf")
    host = folder / "host"
    make_host_key(host)
    shutil.copy(host / "host.pub", beside)
    (beside / "today.json").write_bytes(write_evidence({"verified": True, "path": "a"}, host_key(host), NOW, "1.0"))
    return folder


@pytest.fixture
def auditor(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "stick", tmp_path / "stick")
    return shutil.copytree(made / "auditor", tmp_path / "auditor")


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
    assert len(blocks) == 6
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
    done = type_in(auditor, *tools(KEYS, SIGNATURES))
    assert done.returncode == 0, done.stderr
    fingerprints = {line.split()[0] for line in done.stdout.splitlines() if line.endswith("  -")}
    assert len(fingerprints) == 3
    assert done.stdout.count("Verified OK") == 1
    [file] = (auditor.parent / "stick" / "metadata").glob("*.targets.json")
    file.write_bytes(file.read_bytes().replace(b'"current"', b'"allowed"'))
    assert "Verified OK" not in type_in(auditor, *tools(KEYS, SIGNATURES)).stdout


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
    (blob.parent / ("0" * 64)).write_bytes(b"planted")
    assert type_in(auditor, *tools(BYTES)).returncode != 0
    (blob.parent / ("0" * 64)).unlink()
    assert type_in(auditor, *tools(BYTES)).returncode == 0


@pytest.mark.ci
def test_a_tuf_client_refuses_it_under_another_root(auditor: Path, tmp_path: Path) -> None:
    other, _ = build_toy(tmp_path / "other")
    shutil.copy(other.root_file, auditor / "root.json")
    done = type_in(auditor, *tools(CLIENT))
    assert done.returncode != 0
    assert not any((auditor / "fetched").iterdir())


@pytest.mark.ci
def test_the_provenance(auditor: Path) -> None:
    done = type_in(auditor, *tools(KEYS, CLIENT, PROVENANCE))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Verified OK\n1\n")


@pytest.mark.ci
def test_a_model(auditor: Path) -> None:
    program = oracle(MODEL_SIGNING) / "bin"
    done = type_in(auditor, *tools(KEYS, MODEL), path=str(program))
    assert done.returncode == 0, done.stderr
    assert "Verification succeeded" in done.stdout + done.stderr
    (auditor / "MODEL" / "toy.gguf").write_bytes(b"another")
    assert type_in(auditor, *tools(KEYS, MODEL), path=str(program)).returncode != 0
