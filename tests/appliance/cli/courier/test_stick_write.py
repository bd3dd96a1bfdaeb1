"""`appliance stick write`: what it refuses, what it carries, what it asks, and what it answers."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from appliance.builder.chunking.chunker import Source
from appliance.keys.workspace import Workspace
from bundles.medium import Medium
from tests.attacks.harness import Answer, command
from tests.sim.sticks import SimStick
from tests.toy import build_toy

FILES = [Source(f"files/{number}.txt", "config", data=f"{number} ".encode() * 20_000) for number in range(4)]
BLOBS = "blobs/sha256"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path, Path]:
    folder = tmp_path_factory.mktemp("workspace")
    _, first = build_toy(folder, extra=FILES)
    workspace, second = build_toy(folder, "1.1.0", note="another note", extra=FILES[1:])
    return workspace, first, second


@pytest.fixture
def half_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sticks whose names end in `small` have room for a few of the larger files."""

    def free_bytes(medium: Medium) -> tuple[int, int]:
        used = sum(path.stat().st_size for path in (medium.root / BLOBS).glob("*"))
        return (1_500_000 if medium.root.name.endswith("small") else 1 << 40) - used, 1

    monkeypatch.setattr(Medium, "free_bytes", free_bytes)


def write(built: tuple[Workspace, Path, Path], *words: str | Path, bundle: int = 1) -> Answer:
    return command("stick", "write", built[1:][bundle - 1], *words, "--workspace", built[0].path)


def names(stick: Path) -> set[str]:
    return set(os.listdir(stick / BLOBS))


def test_a_workspace_is_no_stick_for_it_holds_private_keys(tmp_path: Path) -> None:
    workspace, bundle = build_toy(tmp_path / "workspace")
    before = sorted(workspace.path.iterdir())
    answer = command("stick", "write", bundle, workspace.path, "--workspace", workspace.path)
    assert (answer.code, "stick.is-workspace" in answer.talk) == (2, True)
    assert sorted(workspace.path.iterdir()) == before


def test_a_workspace_is_no_stick_for_a_parity(built: tuple[Workspace, Path, Path], tmp_path: Path) -> None:
    answer = write(built, tmp_path / "stick", "--parity", built[0].path)
    assert (answer.code, "stick.is-workspace" in answer.talk) == (2, True)
    assert not (tmp_path / "stick").exists()


def test_the_answer_states_what_was_written_read_back_and_whether_it_may_be_pulled(
    built: tuple[Workspace, Path, Path], tmp_path: Path
) -> None:
    answer = write(built, tmp_path / "stick")
    lines = answer.out.splitlines()
    assert (answer.code, len(lines)) == (0, 5)
    assert lines[0].startswith("toy 1.0.0  manifest sha256:")
    assert [line.split()[0] for line in lines[1:]] == ["written", "read", "device", "removal"]
    assert lines[2].endswith(": as signed")
    assert "no mount point" in lines[4]


@pytest.mark.usefixtures("half_full")
def test_full_sticks_give_exit_5_and_the_words_that_write_the_rest(
    built: tuple[Workspace, Path, Path], tmp_path: Path
) -> None:
    answer = write(built, tmp_path / "small", "--json", "--no-wait")
    assert (answer.code, "stick.more-to-write" in answer.talk) == (5, True)
    told = json.loads(answer.out)
    (ranges,) = told["left"]["ranges"]
    assert f"--only '{ranges}'" in answer.talk
    assert told["left"]["blobs"] > 0
    rest = write(built, tmp_path / "rest", "--only", ranges)
    assert rest.code == 0, rest.talk
    assert len(names(tmp_path / "rest")) == told["left"]["blobs"] + 2
    both = command("verify", tmp_path / "small", tmp_path / "rest", "--workspace", built[0].path)
    assert both.code == 0, both.talk


@pytest.mark.usefixtures("half_full")
def test_several_sticks_and_a_parity_are_written_by_one_command(
    built: tuple[Workspace, Path, Path], tmp_path: Path
) -> None:
    answer = write(built, tmp_path / "small", tmp_path / "large", "--parity", tmp_path / "p", "--json")
    assert answer.code == 0, answer.talk
    told = json.loads(answer.out)
    assert [one["path"].rpartition("/")[2] for one in told["sticks"]] == ["small", "large", "p"]
    assert told["parity_bytes"] > 0
    assert told["blobs_written"] == sum(one["blobs_written"] for one in told["sticks"])
    left = command("verify", tmp_path / "p", tmp_path / "large", "--workspace", built[0].path)
    assert left.code == 0, left.talk


def test_two_bundles_go_onto_one_stick(built: tuple[Workspace, Path, Path], tmp_path: Path) -> None:
    answer = write(built, tmp_path / "stick", "--also", built[2])
    assert answer.code == 0, answer.talk
    assert command("verify", tmp_path / "stick", "--workspace", built[0].path).code == 0


def test_what_another_bundle_has_is_left_out(built: tuple[Workspace, Path, Path], tmp_path: Path) -> None:
    answer = write(built, tmp_path / "stick", "--since", built[1], bundle=2)
    assert answer.code == 0, answer.talk
    assert names(tmp_path / "stick") == names(built[2]) - names(built[1])


@pytest.mark.parametrize("words", [["--yes"], []], ids=["agreed", "not agreed"])
def test_what_is_replaced_is_listed_and_removed_only_after_a_yes(
    built: tuple[Workspace, Path, Path], tmp_path: Path, words: Sequence[str]
) -> None:
    write(built, tmp_path / "stick")
    before = names(tmp_path / "stick")
    refused = write(built, tmp_path / "stick", bundle=2)
    assert (refused.code, "--replace" in refused.talk) == (2, True)
    answer = write(built, tmp_path / "stick", "--replace", *words, bundle=2)
    assert "to be removed from" in answer.talk
    if words:
        assert (answer.code, names(tmp_path / "stick")) == (0, names(built[2]))
    else:  # nobody is there to ask
        assert (answer.code, "stick.unasked" in answer.talk, names(tmp_path / "stick")) == (2, True, before)


def test_ranges_with_a_wrong_check_word_write_nothing(built: tuple[Workspace, Path, Path], tmp_path: Path) -> None:
    answer = write(built, tmp_path / "stick", "--only", "3 0000")
    assert (answer.code, "ranges.check-word" in answer.talk) == (2, True)
    assert not (tmp_path / "stick").exists()


def test_a_receipt_needs_the_workspace_that_knows_its_host(built: tuple[Workspace, Path, Path], tmp_path: Path) -> None:
    (tmp_path / "receipt.json").write_bytes(b"{}")
    words = (built[1], tmp_path / "stick", "--since", tmp_path / "receipt.json")
    bare = command("stick", "write", *words, "--trust", built[0].root_file)
    assert (bare.code, "stick.since-workspace" in bare.talk) == (2, True)
    forged = command("stick", "write", *words, "--workspace", built[0].path)
    assert forged.code == 4, forged.talk
    assert not (tmp_path / "stick").exists()


@pytest.fixture
def bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stick, the second of three of different disks, that is full before it should be."""
    path = tmp_path / "2 small"
    path.mkdir()
    stick = SimStick(path, capacity_bytes=50_000)
    monkeypatch.setattr("bundles.oci.layout.Medium", lambda root: stick if root == path else Medium(root))
    monkeypatch.setattr("bundles.stick.writing.writer.disks_of", lambda one: {str(one)})
    return path


def write_three(built: tuple[Workspace, Path, Path], tmp_path: Path, bad: Path, *words: str | Path) -> Answer:
    return write(built, tmp_path / "1 small", bad, tmp_path / "3", "--no-wait", *words)


@pytest.mark.usefixtures("half_full")
def test_a_stick_that_fails_is_named_and_the_words_of_the_hint_write_it_alone(
    built: tuple[Workspace, Path, Path], tmp_path: Path, bad: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = write_three(built, tmp_path, bad)
    assert (answer.code, "(disk.full)" in answer.talk) == (1, True)
    lines = answer.out.splitlines()
    assert [line for line in lines if line.startswith("stick ")] == [
        f"stick {number} of 3  {path}" for number, path in enumerate((tmp_path / "1 small", bad, tmp_path / "3"), 1)
    ]
    assert lines[lines.index(f"stick 2 of 3  {bad}") + 1] == "failed    disk.full: not whole"
    assert f"stick 2, {bad}, is not whole; done: {tmp_path / '1 small'}, {tmp_path / '3'}" in answer.talk
    (only,) = re.findall(r"this folder and no other, (--only .*? --number 2)", answer.talk)
    # Those that are done may be unmounted: the same command would write into their empty folders.
    assert "the same command" not in answer.talk
    monkeypatch.setattr("bundles.oci.layout.Medium", Medium)
    again = write(built, bad, *shlex.split(only))
    assert again.code == 0, again.talk
    whole = command("verify", tmp_path / "1 small", bad, tmp_path / "3", "--workspace", built[0].path)
    assert whole.code == 0, whole.talk


@pytest.mark.usefixtures("half_full")
def test_a_program_learns_which_sticks_are_done_and_which_failed(
    built: tuple[Workspace, Path, Path], tmp_path: Path, bad: Path
) -> None:
    answer = write_three(built, tmp_path, bad, "--parity", tmp_path / "p", "--json")
    told = json.loads(answer.out)
    assert [one["path"] for one in told["sticks"]] == [str(tmp_path / "1 small"), str(tmp_path / "3")]
    (failed,) = told["failed"]
    assert (failed["path"], failed["number"], failed["error"]["code"]) == (str(bad), 2, "disk.full")
    assert failed["error"]["exit_code"] == answer.code == 1
    assert f"--only '{failed['ranges'][0]}' --number 2" in answer.talk
    assert (told["parity_bytes"], "no parity was written" in answer.talk) == (0, True)
    assert not (tmp_path / "p").exists()
