"""The recipes of this repository are built, installed and asked: each but the demo's, which `test_01_demo` builds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bundles.bundle import open_bundle
from signing.floors import Floors
from tests.bed.ledger import Ledger
from tests.journeys.conftest import PROGRAM, RECIPE, Demo, appliance
from tests.toy import NOW

pytestmark = [pytest.mark.ci, pytest.mark.timeout(600)]

TERMS = 'accepted: {by: a test, date: "2026-01-02"}'


@pytest.mark.network
def test_gemma_is_joined_from_its_parts_and_answers_once_its_terms_are_accepted(tmp_path: Path) -> None:
    shutil.copy(RECIPE.with_name("gemma3-270m.lock.json"), tmp_path)
    text = RECIPE.with_name("gemma3-270m.yaml").read_text()
    recipe, workspace, host = tmp_path / "gemma3-270m.yaml", tmp_path / "workspace", tmp_path / "host"
    recipe.write_text(text)
    assert appliance("init", workspace).code == 0
    refused = appliance("build", recipe, "--workspace", workspace)
    assert refused.code == 2
    assert "licence.not-accepted" in refused.err
    assert not list((workspace / "dist").glob("*"))

    recipe.write_text(text.replace("    context: 8192", f"    context: 8192\n    {TERMS}"))
    built = appliance("build", recipe, "--workspace", workspace)
    assert built.code == 0, built.err
    bundle, root = workspace / "dist/gemma3-270m-1.0.0", workspace / "trust/root.json"
    (model,) = open_bundle(bundle, root.read_bytes(), Floors(), NOW).value.contents.models
    # What its authors published for the whole file.
    assert model.lineage.sha256 == "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"

    shown = json.loads(appliance("trust", "show", "--workspace", workspace, "--json").out)
    fingerprint = shown["roles"]["root"]["fingerprints"][0]
    assert appliance("trust", "pin", root, "--fingerprint", fingerprint, "--prefix", host).code == 0
    done = appliance("install", bundle, "--prefix", host, "--json")
    assert done.code == 0, done.err
    notes = {step["step"]: step["note"] for step in json.loads(done.out)["steps"]}
    assert notes["candidate"].strip()
    assert (host / "opt/appliance/current/licences/model-gemma3-270m/NOTICE.md").is_file()


def test_build_from_a_warm_cache_tries_to_reach_no_network(demo: Demo, ledger: Ledger, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    assert appliance("init", workspace).code == 0
    # The demo has filled the cache; the ledger refuses this test if anything was tried.
    ledger.run([*PROGRAM, "lock", str(RECIPE)], timeout_s=280)
    ledger.run([*PROGRAM, "build", str(RECIPE), "--workspace", str(workspace)], timeout_s=280)
    built = sorted(path.name for path in (workspace / "dist/smollm2-1.0.0/blobs/sha256").iterdir())
    assert built == sorted(path.name for path in (demo.bundle / "blobs/sha256").iterdir())
