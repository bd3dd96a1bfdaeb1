"""The walk from the pinned root, and every way to lead it astray that is known."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.keys.publication import publish
from appliance.keys.signers.pem import PemKey, create_key
from appliance.keys.tuf_metadata import sign, write_snapshot, write_targets
from appliance.keys.tuf_repository import read_newest
from appliance.keys.workspace import Workspace, create_development
from signing.chain import walk
from signing.errors import ApplianceError, NotTrustedError
from signing.floors import Floors
from signing.strictjson import Json, load, to_file
from tests.sim.tuf import USUAL, TufRepository, key, keys
from tests.toy import NOW

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made, _ = create_development(tmp_path_factory.mktemp("workspace"), NOW)
    publish(made, "toy", "1.0.0", b"{}", NOW)
    return made


@pytest.fixture
def files(workspace: Workspace) -> Files:
    return read_newest(workspace)


def go(files: Files, floors: Floors = Floors(), pinned: bytes = b"") -> None:  # noqa: B008 - frozen
    walk(pinned or files["1.root.json"], lambda name, _most: files.get(name), floors)


def signed(files: Files, name: str) -> dict[str, Json]:
    value = load(files[name], name)
    assert isinstance(value, dict)
    return copy.deepcopy(value["signed"])


def refuse(files: Files, code: str, floors: Floors = Floors()) -> None:  # noqa: B008 - frozen
    with pytest.raises(NotTrustedError) as caught:
        go(files, floors)
    assert caught.value.code == code


def with_targets(files: Files, targets: bytes, builder: PemKey) -> Files:
    return {**files, "2.targets.json": targets, **write_snapshot(2, targets, 2, builder, NOW)}


def test_untouched_repository_passes(files: Files) -> None:
    go(files)


def test_targets_signed_by_the_builder_are_refused(files: Files, workspace: Workspace) -> None:
    builder = workspace.key("builder")
    refuse(with_targets(files, write_targets(2, {}, builder, NOW), builder), "signature.stranger")


def test_targets_without_a_signature_are_refused(files: Files, workspace: Workspace) -> None:
    naked = to_file({"signatures": [], "signed": signed(files, "2.targets.json")})
    refuse(with_targets(files, naked, workspace.key("builder")), "signature.threshold")


def test_the_same_signature_twice_is_refused(files: Files, workspace: Workspace) -> None:
    value = load(files["2.targets.json"], "x")
    doubled = to_file({**value, "signatures": value["signatures"] * 2})
    refuse(with_targets(files, doubled, workspace.key("builder")), "metadata.refused")


def test_signature_over_other_bytes_is_refused(files: Files, workspace: Workspace) -> None:
    value = load(files["2.targets.json"], "x")
    value["signed"]["version"] = 2
    value["signed"]["expires"] = "2099-01-01T00:00:00Z"
    refuse(with_targets(files, to_file(value), workspace.key("builder")), "signature.invalid")


def test_delegations_are_refused(files: Files, workspace: Workspace) -> None:
    value = {**signed(files, "2.targets.json"), "delegations": {"keys": {}, "roles": []}}
    refuse(with_targets(files, sign(value, [workspace.key("targets")]), workspace.key("builder")), "metadata.refused")


@pytest.mark.parametrize("hashes", [{}, {"md5": "00"}, {"sha256": "0" * 64, "md5": "00"}, {"sha512": "0" * 128}])
def test_other_hashes_than_sha256_are_refused(files: Files, workspace: Workspace, hashes: Json) -> None:
    value = signed(files, "2.targets.json")
    [entry] = value["targets"].values()
    entry["hashes"] = hashes
    with pytest.raises(NotTrustedError):
        go(with_targets(files, sign(value, [workspace.key("targets")]), workspace.key("builder")))


def test_snapshot_of_another_release_is_refused(files: Files, workspace: Workspace) -> None:
    other = write_snapshot(2, b"other targets", 2, workspace.key("builder"), NOW)
    refuse({**files, "2.snapshot.json": other["2.snapshot.json"]}, "metadata.mixed")


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_version_below_the_floor_is_a_rollback(files: Files, role: str) -> None:
    refuse(files, "version.rollback", dataclasses.replace(Floors(), **{role: 3}))  # type: ignore[arg-type]


def test_jump_far_ahead_of_a_floor_is_a_fast_forward(files: Files, workspace: Workspace) -> None:
    targets = write_targets(10_001, {}, workspace.key("targets"), NOW)
    ahead = {
        **files,
        "10001.targets.json": targets,
        **write_snapshot(2, targets, 10_001, workspace.key("builder"), NOW),
    }
    go(ahead, Floors(targets=1))
    go(ahead)
    targets = write_targets(10_002, {}, workspace.key("targets"), NOW)
    further = write_snapshot(2, targets, 10_002, workspace.key("builder"), NOW)
    refuse({**files, "10002.targets.json": targets, **further}, "version.fast-forward", Floors(targets=1))


def test_missing_metadata_names_the_file(files: Files) -> None:
    del files["2.snapshot.json"]
    refuse(files, "metadata.missing")


def test_key_id_that_is_not_the_digest_of_its_key_is_refused(files: Files, workspace: Workspace) -> None:
    root = signed(files, "1.root.json")
    key_id = next(iter(root["keys"]))
    root["keys"]["0" * 64] = root["keys"].pop(key_id)
    for role in root["roles"].values():
        role["keyids"] = ["0" * 64 if item == key_id else item for item in role["keyids"]]
    refuse({**files, "1.root.json": sign(root, [workspace.key("root")])}, "metadata.refused")


def test_builders_key_among_the_people_is_refused(files: Files, workspace: Workspace) -> None:
    root = signed(files, "1.root.json")
    root["roles"]["targets"]["keyids"] = sorted(
        [*root["roles"]["targets"]["keyids"], *root["roles"]["snapshot"]["keyids"]]
    )
    refuse({**files, "1.root.json": sign(root, [workspace.key("root")])}, "metadata.refused")


def rotated(files: Files, workspace: Workspace, keys: list[PemKey]) -> Files:
    root = signed(files, "1.root.json")
    root["version"] = 2
    return {**files, "2.root.json": sign(root, keys)}


def test_root_rotation_signed_by_the_pinned_threshold_is_followed(files: Files, workspace: Workspace) -> None:
    go(rotated(files, workspace, [workspace.key("root")]))


def test_new_root_that_the_pinned_root_did_not_sign_is_refused(
    files: Files, workspace: Workspace, tmp_path: Path
) -> None:
    refuse(rotated(files, workspace, [create_key(tmp_path / "thief.pem")]), "signature.stranger")
    refuse(rotated(files, workspace, [workspace.key("targets")]), "signature.stranger")


def test_other_root_of_the_pinned_version_beside_the_metadata_is_refused(
    files: Files, workspace: Workspace, tmp_path: Path
) -> None:
    thief, _ = create_development(tmp_path, NOW)
    with pytest.raises(NotTrustedError) as caught:
        go({**files, "1.root.json": thief.root_file.read_bytes()}, pinned=files["1.root.json"])
    assert caught.value.code == "root.differs"


def test_builder_cannot_raise_the_time_floor(files: Files, workspace: Workspace) -> None:
    timestamp = {**signed(files, "timestamp.json"), "x-appliance-issued": "2090-01-01T00:00:00Z"}
    later = {**files, "timestamp.json": sign(timestamp, [workspace.key("builder")])}
    walked = walk(later["1.root.json"], lambda name, _most: later.get(name), Floors())
    assert walked.floors.time == "2026-01-02T03:04:05Z"


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_changed_byte_of_any_metadata_file_is_refused(workspace: Workspace, data: st.DataObject) -> None:
    files = read_newest(workspace)
    name = data.draw(st.sampled_from(sorted(files)))
    at = data.draw(st.integers(0, len(files[name]) - 1))
    change = data.draw(st.sampled_from(["flip", "delete", "double"]))
    old = files[name]
    new = {
        "flip": old[:at] + bytes([old[at] ^ (1 << data.draw(st.integers(0, 7)))]) + old[at + 1 :],
        "delete": old[:at] + old[at + 1 :],
        "double": old[:at] + old[at : at + 1] + old[at:],
    }[change]
    if new != old:
        with pytest.raises(ApplianceError) as caught:
            go({**files, name: new}, pinned=files["1.root.json"])
        assert caught.value.exit_code == 4
        assert name in caught.value.subject


def test_root_that_replaced_all_its_people_can_be_pinned_and_its_predecessors_lie_beside_it() -> None:
    old, new, last = keys("chain-old", 2), keys("chain-new", 2), keys("chain-last", 2)
    repository = TufRepository(replace(USUAL, root=old))
    for people in (new, last):
        repository.rotate(replace(USUAL, root=people))
    third = repository.files["3.root.json"]
    assert walk(third, repository.read, Floors()).root.version == 3
    value = load(third, "root", 1 << 20)
    value["signatures"] = [one for one in value["signatures"] if one["keyid"] != last[0].public.key_id]
    with pytest.raises(NotTrustedError) as caught:
        walk(to_file(value), repository.read, Floors())
    assert caught.value.code == "signature.threshold"


def test_first_root_holds_no_signature_of_a_stranger() -> None:
    repository = TufRepository(USUAL)
    repository.edit("1.root.json", lambda _: None, by=[*USUAL.root[:2], key("stranger")])
    with pytest.raises(NotTrustedError) as caught:
        repository.walk()
    assert caught.value.code == "signature.stranger"
