"""`init --ceremony` that is killed at any moment leaves nothing, a whole workspace, or what the next one finishes."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest

from appliance.keys.ceremony import begin, collect, signatures_made, waiting
from appliance.keys.publication import publish
from appliance.keys.rotation import Change, rotate
from appliance.keys.signature_requests.request import BOOT, Item, Request
from appliance.keys.tuf_repository import published
from appliance.keys.workspace import Workspace, create_development, open_workspace
from signing.errors import UsageError
from tests.appliance.builder.test_build_killed import run_until
from tests.sim.people import ROOT, TARGETS, Ceremony, finished
from tests.sim.tuf import Keys
from tests.toy import NOW


def make(path: Path, root: Keys = ROOT) -> tuple[Workspace, Request]:
    people = [([one.public for one in holders], 2) for holders in (root, TARGETS)]
    return begin(path, people[0], people[1], NOW)


def test_killed_at_every_touch_of_a_file_it_is_finished_by_the_next(tmp_path: Path) -> None:
    assert run_until(0, partial(make, tmp_path / "whole"), tmp_path / "told") == 0
    touches = int((tmp_path / "told").read_text())
    assert touches > 10
    seen = set()
    for event in range(1, touches + 1):
        path = tmp_path / str(event) / "workspace"
        path.parent.mkdir()
        assert run_until(event, partial(make, path), tmp_path / "told") == -9
        with pytest.raises(UsageError) as caught:
            open_workspace(path)
        seen.add(caught.value.code)
        before = waiting(Workspace(path), "root-1")
        if before is not None and not (path / ".init").exists():
            with pytest.raises(UsageError, match="workspace.occupied"):
                make(path)  # it is whole
            continue
        workspace, request = make(path)
        assert before in (None, request), "what somebody may have signed is what is asked"
        assert sorted(one.name for one in path.iterdir()) == ["keys", "requests", "trust"]
        assert [one.name for one in (path / "keys").iterdir()] == ["builder.pem"]
        assert workspace.builder(request.new_root()).public.key_id in request.new_root().roles["timestamp"].keys
    assert seen == {"workspace.missing", "workspace.unsigned"}
    (path.parent / "mail").mkdir()
    assert Ceremony(workspace, path.parent / "mail").collect("root-1", (*ROOT[:2], *TARGETS[:2])).is_complete


def halves(tmp_path: Path, name: str) -> Path:
    """A workspace whose making was killed after its request was written."""
    path = tmp_path / name
    make(path)
    (path / ".init").mkdir()
    return path


def test_other_people_do_not_replace_those_who_were_asked(tmp_path: Path) -> None:
    path = halves(tmp_path, "workspace")
    before = (path / "requests" / "root-1.json").read_bytes()
    with pytest.raises(UsageError) as caught:
        make(path, ROOT[:2])
    assert (caught.value.code, "once more" in caught.value.hint) == ("workspace.occupied", True)
    assert (path / "requests" / "root-1.json").read_bytes() == before
    make(path)
    assert not (path / ".init").exists()


def test_a_whole_workspace_or_one_that_lost_a_part_is_not_taken_for_a_half_made_one(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    make(whole)
    with pytest.raises(UsageError, match="workspace.occupied"):
        make(whole)
    (whole / "requests" / "root-1.json").unlink()
    with pytest.raises(UsageError, match="workspace.occupied"):
        make(whole)
    development, _ = create_development(tmp_path / "development", NOW)
    (development.path / ".init").mkdir()
    development.root_file.unlink()
    with pytest.raises(UsageError, match="workspace.occupied"):
        make(development.path)


def test_a_development_workspace_is_not_made_of_half_a_ceremony(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        create_development(halves(tmp_path, "workspace"), NOW)
    assert "appliance init --ceremony" in caught.value.hint


@pytest.mark.ci
def test_new_builders_key_is_whole_or_not_there_however_its_making_was_killed(tmp_path: Path) -> None:
    asked, told = finished(tmp_path).workspace.path, tmp_path / "told"

    def change(path: Path) -> None:
        rotate(Workspace(path), Change(new_builder=True), NOW)

    shutil.copytree(asked, tmp_path / "0")
    assert run_until(0, partial(change, tmp_path / "0"), told) == 0
    touches = int(told.read_text())
    assert touches > 10
    for event in range(1, touches + 1):
        path = tmp_path / str(event)
        shutil.copytree(asked, path)
        assert run_until(event, partial(change, path), told) == -9
        if waiting(Workspace(path), "root-2") is None:
            change(path)
        request = waiting(Workspace(path), "root-2")
        assert request is not None
        assert Workspace(path).builder(request.new_root())


@pytest.mark.ci
def test_publishing_that_was_killed_loses_no_signature_and_is_finished_by_the_same_command(tmp_path: Path) -> None:
    ceremony, told = finished(tmp_path), tmp_path / "told"
    boot = Item(BOOT, "BOOT/BOOT.sha256", b"0" * 64 + b"  serial-1\n")
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW, items=(boot,))
    files = ceremony.signed_by("targets-2", (*TARGETS[:2], *ROOT[:2]))

    def bring(path: Path) -> Request:
        return collect(Workspace(path), files, NOW)

    shutil.copytree(ceremony.workspace.path, tmp_path / "0")
    assert run_until(0, partial(bring, tmp_path / "0"), told) == 0
    touches = int(told.read_text())
    assert touches > 100
    for event in range(1, touches + 1, 5):
        path = tmp_path / str(event)
        shutil.copytree(ceremony.workspace.path, path)
        assert run_until(event, partial(bring, path), told) == -9
        assert bring(path).is_complete
        assert published(Workspace(path)).walked.targets.version == 2
        assert set(signatures_made(Workspace(path))[boot.message]) == {one.public for one in ROOT[:2]}
        assert [one.name for one in (path / "requests").iterdir()] == ["done"]
