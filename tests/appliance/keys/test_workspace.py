"""A publisher's workspace: made whole, kept private, and never made twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.keys.publication import publish
from appliance.keys.tuf_metadata import write_snapshot, write_targets
from appliance.keys.tuf_repository import read_newest
from appliance.keys.workspace import create_development, open_workspace
from signing.errors import BusyError, UsageError
from signing.strictjson import load
from tests.toy import NOW, build_toy


def test_keys_are_private_and_outside_everything_that_travels(tmp_path: Path) -> None:
    workspace, bundle = build_toy(tmp_path)
    keys = sorted((tmp_path / "keys").iterdir())
    assert [key.name for key in keys] == ["builder.pem", "root.pem", "targets.pem"]
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    everything = b"".join(path.read_bytes() for path in bundle.rglob("*") if path.is_file())
    assert b"PRIVATE KEY" not in everything
    assert workspace.root().profile == "development"


def test_workspace_that_exists_is_left_alone(tmp_path: Path) -> None:
    create_development(tmp_path, NOW)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    _, is_new = create_development(tmp_path, NOW)
    assert not is_new
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_init_that_was_killed_between_its_two_moves_is_finished(tmp_path: Path) -> None:
    create_development(tmp_path, NOW)
    fingerprint = open_workspace(tmp_path).key("root").public.fingerprint
    (tmp_path / ".init").mkdir()
    (tmp_path / "trust").rename(tmp_path / ".init/trust")
    _, is_new = create_development(tmp_path, NOW)
    assert is_new
    assert open_workspace(tmp_path).key("root").public.fingerprint == fingerprint
    assert not (tmp_path / ".init").exists()


def test_init_that_was_killed_while_making_keys_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / ".init" / "keys").mkdir(parents=True)
    (tmp_path / ".init" / "keys" / "root.pem").write_text("half")
    assert create_development(tmp_path, NOW)[1]
    open_workspace(tmp_path).key("root")


@pytest.mark.parametrize("name", ["keys", "trust"])
def test_init_never_removes_what_somebody_else_put_there(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "precious").write_text("x")
    with pytest.raises(UsageError) as caught:
        create_development(tmp_path, NOW)
    assert caught.value.code == "workspace.occupied"
    assert (tmp_path / name / "precious").read_text() == "x"


def test_second_build_at_the_same_time_is_told_to_wait(tmp_path: Path) -> None:
    workspace, _ = create_development(tmp_path, NOW)
    with workspace.locked(), pytest.raises(BusyError), open_workspace(tmp_path).locked():
        pass


def test_revoked_bundle_is_not_made_current_by_building_it_again(tmp_path: Path) -> None:
    workspace, _ = create_development(tmp_path, NOW)
    publish(workspace, "toy", "1.0.0", b"{}", NOW)
    newest = load(read_newest(workspace)["2.targets.json"], "x")["signed"]["targets"]
    newest["bundles/toy/1.0.0/manifest.json"]["custom"]["status"] = "revoked"
    targets = write_targets(3, newest, workspace.key("targets"), NOW)
    files = {"3.targets.json": targets, **write_snapshot(3, targets, 3, workspace.key("builder"), NOW)}
    for name, data in files.items():
        workspace.repository.write(f"metadata/{name}", data)
    with pytest.raises(UsageError) as caught:
        publish(workspace, "toy", "1.0.0", b"{}", NOW)
    assert caught.value.code == "bundle.revoked"
    assert read_newest(workspace)["timestamp.json"] == files["timestamp.json"]


def test_folder_without_a_workspace_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        open_workspace(tmp_path)
    assert "appliance init" in caught.value.hint


def test_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    workspace, _ = create_development(tmp_path, NOW)
    (tmp_path / "keys" / "targets.pem").chmod(0o644)
    with pytest.raises(UsageError) as caught:
        workspace.key("targets")
    assert caught.value.code == "key.exposed"


def test_publishing_the_same_bundle_again_signs_nothing(tmp_path: Path) -> None:
    workspace, _ = create_development(tmp_path, NOW)
    assert publish(workspace, "toy", "1.0.0", b"{}", NOW)
    before = read_newest(workspace)
    assert not publish(workspace, "toy", "1.0.0", b"{}", NOW)
    assert read_newest(workspace) == before


def test_new_version_makes_the_old_one_allowed(tmp_path: Path) -> None:
    workspace, _ = create_development(tmp_path, NOW)
    publish(workspace, "toy", "1.0.0", b"{}", NOW)
    publish(workspace, "toy", "1.1.0", b"[]", NOW)
    targets = load(read_newest(workspace)["3.targets.json"], "x")["signed"]["targets"]
    assert {name.split("/")[2]: entry["custom"]["status"] for name, entry in targets.items()} == {
        "1.0.0": "allowed",
        "1.1.0": "current",
    }
