"""Other people's verifiers of model signatures: `model_signing` and `openssl`."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from appliance.keys.workspace import Workspace
from bundles.attestation.dsse import pae
from bundles.bundle import open_bundle
from bundles.chunks.copy import copy_file
from bundles.oci.layout import Layout
from signing.floors import Floors
from signing.keys import key_to_json
from signing.strictjson import load
from tests.oracles.__main__ import MODEL_SIGNING
from tests.oracles.ready import oracle
from tests.toy import NOW, build_toy


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The model's folder as an installed host has it, its signature, and the public key."""
    folder = tmp_path_factory.mktemp("oms")
    workspace, bundle = build_toy(folder / "workspace")
    contents = open_bundle(bundle, workspace.root_file.read_bytes(), Floors(), NOW).value.contents
    [file] = contents.of_kind("model")
    copy_file(file, Layout(bundle).open_chunk, folder / "model" / "toy.gguf")
    [signature] = bundle.glob("attestations/*/*.oms")
    return folder / "model", signature, public_pem(workspace, folder)


def public_pem(workspace: Workspace, folder: Path) -> Path:
    [key] = workspace.root().roles["targets"].keys.values()
    value = key_to_json(key)
    (folder / "targets.pem").write_text(value["keyval"]["public"])
    return folder / "targets.pem"


def model_signing(model: Path, signature: Path, key: Path) -> subprocess.CompletedProcess[str]:
    program = oracle(MODEL_SIGNING) / "bin" / "model_signing"
    # In a namespace of its own there is no network at all.
    argv: list[str | Path] = [
        "unshare",
        "-rn",
        program,
        "verify",
        "key",
        model,
        "--signature",
        signature,
        "--public_key",
        key,
    ]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120)


def test_the_reference_tool_accepts_our_signature_without_a_network(made: tuple[Path, Path, Path]) -> None:
    done = model_signing(*made)
    assert done.returncode == 0, done.stderr + done.stdout


def test_the_reference_tool_refuses_a_changed_model(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    (tmp_path / "toy.gguf").write_bytes((made[0] / "toy.gguf").read_bytes() + b"x")
    assert model_signing(tmp_path, *made[1:]).returncode != 0


@pytest.mark.parametrize("form", ["oms", "dsse"])
def test_openssl_verifies_what_was_signed(made: tuple[Path, Path, Path], tmp_path: Path, form: str) -> None:
    [path] = made[1].parents[1].glob(f"*/*.{form}")
    value = load(path.read_bytes(), form)
    envelope = value["dsseEnvelope"] if form == "oms" else value
    message, signature = tmp_path / "message", tmp_path / "signature"
    message.write_bytes(pae(envelope["payloadType"], base64.b64decode(envelope["payload"])))
    signature.write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    argv: list[str | Path] = ["openssl", "dgst", "-sha256", "-verify", made[2], "-signature", signature, message]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "Verified OK")
    message.write_bytes(message.read_bytes() + b"x")
    assert subprocess.run(argv, capture_output=True).returncode != 0
