"""A chat template was mended: a receipt goes out, a few blobs come in, and the new version serves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appliance.builder.chunking.bundle_writer import remove_bundle
from bundles.bundle import open_bundle
from signing.floors import Floors
from tests.appliance.shipped import recipe_with, shipped_model
from tests.bench.material import now
from tests.journeys.conftest import PROGRAM, Demo, appliance

pytestmark = pytest.mark.ci

VERSION = "1.0.1"
OLD_WORDS, NEW_WORDS = b"You are a helpful AI", b"You are a careful AI"
MAX_DELTA_BYTES, MAX_CHUNK_BYTES = 1_000_000, 500
"""The figure of the design: below 1 MB, and 0.5 kB for each chunk of the bundle."""


@dataclass(frozen=True)
class Delivered:
    """What the delta was, and what the host did with it."""

    stick: Path
    chunks: int
    manifest: str
    answer: dict[str, Any]
    status: str
    mended_models: int


def run(*arguments: str | Path) -> str:
    done = appliance(*arguments)
    assert done.code == 0, done.err[-4000:]
    return done.out


def mended_model(path: Path) -> Path:
    """The shipped model with another word in its chat template; every weight is the same."""
    _, model = shipped_model()
    data = model.read_bytes()
    assert data.count(OLD_WORDS) == 1
    path.write_bytes(data.replace(OLD_WORDS, NEW_WORDS))
    return path


def ask(host: Path) -> dict[str, Any]:
    """Start `serve`, ask one question, and end it."""
    words = [*PROGRAM, "serve", "--prefix", str(host), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        try:
            assert child.stdout is not None
            ready = json.loads(child.stdout.readline())
            question = {"model": "smollm2-135m", "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]}
            request = urllib.request.Request(
                f"{ready['url']}/v1/chat/completions",
                json.dumps(question).encode(),
                {
                    "authorization": f"Bearer {Path(ready['key_file']).read_text().strip()}",
                    "content-type": "application/json",
                },
            )
            with urllib.request.urlopen(request) as reply:
                return {"release": reply.headers["appliance-release"], **json.load(reply)}
        finally:
            child.terminate()


@contextmanager
def unchanged(host: Path, aside: Path) -> Iterator[None]:
    """Put a host back as it was, at the end: other journeys look at it."""
    subprocess.run(["cp", "-a", "--reflink=auto", host, aside], check=True)
    try:
        yield
    finally:
        shutil.rmtree(host)
        os.rename(aside, host)


@pytest.fixture(scope="module")
def delivered(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivered]:
    folder = tmp_path_factory.mktemp("delta")
    with unchanged(demo.host, demo.folder / "host-aside"):
        yield deliver(demo, folder)


def deliver(demo: Demo, folder: Path) -> Delivered:
    """A receipt of the demo's host, a new version, its delta on a stick, and the install of that."""
    host, stick, workspace, courier = demo.host, folder / "stick", folder / "workspace", folder / "courier"
    courier.mkdir()
    # What was published counts, not the bundle: the next version is published in a copy without it.
    shutil.copytree(demo.workspace, workspace, ignore=shutil.ignore_patterns("dist"))
    receipt = json.loads(run("receipt", "write", courier, "--prefix", host, "--yes", "--json"))["path"]
    key = json.loads(run("trust", "show", "--prefix", host, "--json"))["host_key"]
    run("receipt", "read", receipt, "--fingerprint", key, "--workspace", workspace)
    recipe = recipe_with(mended_model(folder / "mended.gguf"), folder / "recipes/smollm2.yaml", version=VERSION)
    run("build", recipe, "--workspace", workspace)
    new = workspace / f"dist/smollm2-{VERSION}"
    run("stick", "write", new, stick, "--since", receipt, "--workspace", workspace)
    bundle = open_bundle(new, (workspace / "trust/root.json").read_bytes(), Floors(), now()).value
    remove_bundle(new)
    run("install", stick, "--prefix", host, "--yes")
    answer, status = ask(host), run("status", "--prefix", host)
    models = (host / "var/lib/appliance/models").glob("*/*.gguf")
    mended = sum(NEW_WORDS in model.read_bytes() for model in models)
    return Delivered(stick, len(bundle.blobs) - 2, bundle.manifest, answer, status, mended)


def test_stick_is_small_whatever_the_size_of_the_model(delivered: Delivered) -> None:
    files = [path for path in delivered.stick.rglob("*") if path.is_file()]
    carried = sum(path.stat().st_size for path in files)
    print(f"carried {carried} bytes in {len(files)} files")
    assert carried < MAX_DELTA_BYTES + MAX_CHUNK_BYTES * delivered.chunks


def test_stick_brings_the_new_template_and_none_of_the_weights(delivered: Delivered) -> None:
    blobs = list((delivered.stick / "blobs/sha256").iterdir())
    assert any(NEW_WORDS in blob.read_bytes() for blob in blobs)
    assert max(blob.stat().st_size for blob in blobs) < 1 << 20
    assert not (delivered.stick / "BOOT").exists()


def test_new_version_is_installed_whole_and_serves(delivered: Delivered) -> None:
    assert delivered.answer["release"].removeprefix("sha256:") == delivered.manifest
    assert delivered.answer["choices"][0]["message"]["content"]
    assert delivered.status.endswith("everything is as it was signed\n")
    assert delivered.mended_models == 1
