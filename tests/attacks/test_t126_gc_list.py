"""T126: the list of files of a release that is kept was changed, so that gc takes its models for unused ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.host.layout.prefix import Prefix
from appliance.host.maintenance.cleanup import clean_up
from appliance.host.release.installed_files import installed_files
from bundles.oci.layout import blob_path
from bundles.oci.manifest import parse_manifest
from signing.strictjson import to_file
from tests.appliance.host.held_releases import empty_host, hold_release, model_of
from tests.attacks.harness import guard_off, refused, row
from tests.toy import NOW

ROW = row(126)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """The release that serves, beside one that goes."""
    host = empty_host(tmp_path)
    hold_release(host, "1.0.1", is_complete=False)
    return hold_release(host, "1.0.2", serves=True)


def prefix_of(release: Path) -> Prefix:
    return Prefix.at(release.parents[3])


def hide_model(release: Path) -> str:
    """Give the model in the list the digest of another file; returns the true one."""
    model = model_of(release)
    index = json.loads((release / "bundle/index.json").read_bytes())
    manifest = release / "bundle" / blob_path(index["manifests"][0]["digest"].removeprefix("sha256:"))
    contents = release / "bundle" / blob_path(parse_manifest(manifest.read_bytes()).contents)
    value = json.loads(contents.read_bytes())
    for file in value["files"]:
        if file["sha256"] == model:
            file["sha256"] = "0" * 64
    contents.chmod(0o644)
    contents.write_bytes(to_file(value))
    return model


def clean(release: Path) -> None:
    clean_up(prefix_of(release), 1, lambda: NOW)


def test_unattacked_models_of_the_release_stay(release: Path) -> None:
    model = model_of(release)
    clean(release)
    assert [path.name for path in prefix_of(release).models.iterdir()] == [model]


def test_attacked_by_a_list_without_the_model(release: Path) -> None:
    model = hide_model(release)
    refused(ROW, lambda: clean(release), "release.list-changed", release.name)
    assert (prefix_of(release).models / model).is_dir()


def test_unguarded_the_model_that_serves_is_removed(release: Path) -> None:
    model = hide_model(release)
    with guard_off(ROW.guard, lambda *_: None):
        assert model not in {file.sha256 for file in installed_files(release)}
        clean(release)
    assert not (prefix_of(release).models / model).exists()
