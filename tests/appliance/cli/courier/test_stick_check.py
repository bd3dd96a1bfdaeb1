"""`appliance stick check` shows what a set of sticks has, lacks and has wrong, and the next step."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bundles.bundle import Bundle, open_bundle
from bundles.oci.layout import STICK_FILE, Layout, blob_path
from bundles.parity.streams import plan_parity, write_parity
from bundles.stick.card import StickBundle, StickCard, name_set, runs_of, write_card
from signing.floors import Floors
from tests.attacks.harness import command
from tests.toy import NOW, build_toy


@dataclass(frozen=True)
class Sticks:
    """Two sticks of a set, each with every small file and half of the chunks, and a third with the parity."""

    bundle: Bundle
    root: Path
    paths: tuple[Path, Path, Path]

    def check(self, *numbers: int) -> tuple[int, dict[str, Any], str]:
        """Exit code, answer in JSON, and messages."""
        named = [str(self.paths[number - 1]) for number in numbers]
        answer = command("stick", "check", *named, "--trust", self.root, "--json")
        return answer.code, json.loads(answer.out), answer.talk

    def text(self, *numbers: int) -> str:
        """The answer for people."""
        named = [str(self.paths[number - 1]) for number in numbers]
        return command("stick", "check", *named, "--trust", self.root).out

    @property
    def model(self) -> Path:
        """A blob of the model, on the stick that has it."""
        chunk = self.bundle.contents.by_path["models/toy/toy.gguf"].chunks[0]
        return next(path / blob_path(chunk.sha256) for path in self.paths if (path / blob_path(chunk.sha256)).exists())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sticks:
    folder = tmp_path_factory.mktemp("sticks")
    workspace, path = build_toy(folder / "workspace")
    bundle = open_bundle(path, workspace.root_file.read_bytes(), Floors(), NOW).value
    chunks = bundle.blobs[2:]
    shares = (chunks[::2], chunks[1::2])
    runs = tuple((runs_of(bundle, {chunk.sha256 for chunk in share}),) for share in (*shares, ()))
    named = StickBundle("toy", "1.0.0", bundle.manifest)
    paths = (folder / "stick-1", folder / "stick-2", folder / "stick-3")
    for number, place in enumerate(paths, 1):
        shutil.copytree(path, place)
        held = shares[number - 1] if number < 3 else []
        for chunk in chunks:
            if chunk not in held:
                (place / blob_path(chunk.sha256)).unlink()
        card = StickCard(name_set([bundle.manifest]), number, 3, (named,), runs)
        (place / STICK_FILE).write_bytes(write_card(card))
    write_parity(plan_parity(shares), Layout(path).open_chunk, Layout(paths[2]))
    return Sticks(bundle, workspace.root_file, paths)


@pytest.fixture
def sticks(made: Sticks, tmp_path: Path) -> Sticks:
    paths = tuple(shutil.copytree(path, tmp_path / path.name) for path in made.paths)
    return Sticks(made.bundle, made.root, (paths[0], paths[1], paths[2]))


def test_all_sticks_of_a_set_are_whole_with_exit_0(sticks: Sticks) -> None:
    code, answer, _ = sticks.check(2, 1)
    assert code == 0
    assert answer["bundles"][0]["present"] == answer["bundles"][0]["blobs"] == len(sticks.bundle.blobs)
    assert answer["next"] == ["nothing: every blob is here, and is what was signed"]
    assert "stick 1 of 3" in sticks.text(1, 2)


def test_a_missing_stick_gives_exit_5_its_number_and_what_to_read_out(sticks: Sticks) -> None:
    code, answer, talk = sticks.check(1)
    bundle = answer["bundles"][0]
    assert (code, bundle["missing_on_sticks"], bundle["damaged"]) == (5, [2], [])
    assert [one["number"] for one in bundle["missing"]] == list(range(4, len(sticks.bundle.blobs) + 1, 2))
    text = sticks.text(1)
    assert f"read out   {bundle['wanted']}" in text
    assert "plug in stick 2" in text
    assert "stick.next" in talk


@pytest.mark.parametrize("lost", [1, 2])
def test_with_the_parity_any_one_stick_may_be_missing(sticks: Sticks, lost: int) -> None:
    code, answer, _ = sticks.check(3 - lost, 3)
    assert code == 0
    assert answer["bundles"][0]["rebuilt"] > 0
    assert answer["bundles"][0]["missing"] == []
    assert "rebuilt from the parity" in sticks.text(3 - lost, 3)


def test_a_damaged_blob_is_named_with_file_model_and_stick_and_exit_3(sticks: Sticks) -> None:
    data = bytearray(sticks.model.read_bytes())
    data[0] ^= 1
    sticks.model.write_bytes(data)
    code, answer, talk = sticks.check(1, 2)
    damaged = answer["bundles"][0]["damaged"]
    assert (code, len(damaged)) == (3, 1)
    assert (damaged[0]["blob"], damaged[0]["models"]) == (sticks.model.name, ["toy"])
    assert damaged[0]["media"] == [str(sticks.model.parents[2])]
    assert damaged[0]["files"] == ["models/toy/toy.gguf"]
    assert "models/toy/toy.gguf" in talk
    assert "(model toy), on " in " ".join(sticks.text(1, 2).split())


def test_a_damaged_copy_beside_a_right_one_is_reported_and_the_bundle_whole(sticks: Sticks) -> None:
    shutil.copytree(sticks.paths[0], sticks.paths[1], dirs_exist_ok=True)
    sticks.paths[1].joinpath(sticks.model.relative_to(sticks.model.parents[2])).write_bytes(b"")
    code, answer, _ = sticks.check(1, 2)
    bundle = answer["bundles"][0]
    assert (code, bundle["present"], bundle["wanted"]) == (3, len(sticks.bundle.blobs), "")
    assert [one["is_elsewhere"] for one in bundle["damaged"]] == [True]


def test_a_file_that_was_not_signed_gives_exit_4_before_all_else(sticks: Sticks) -> None:
    (sticks.paths[0] / "blobs/sha256/other").write_bytes(b"not signed")
    code, answer, _ = sticks.check(1)
    assert code == 4
    assert "call a key holder" in answer["next"][0]
    assert answer["media"][0]["error"]["code"] == "layout.unlisted"


def test_litter_is_listed_and_harmless(sticks: Sticks) -> None:
    (sticks.paths[0] / ".Trashes").mkdir()
    code, answer, _ = sticks.check(1, 2)
    assert code == 0
    assert answer["media"][0]["beside"] == [{"name": ".Trashes", "left_by": "macOS"}]
    assert "parity" not in [one["name"] for one in answer["media"][0]["beside"]]


def test_a_check_changes_nothing(sticks: Sticks) -> None:
    def state() -> list[tuple[str, int, int]]:
        files = (path for stick in sticks.paths for path in sorted(stick.rglob("*")))
        return [(str(path), path.lstat().st_ino, path.lstat().st_mtime_ns) for path in files]

    before = state()
    sticks.check(1, 3)
    assert state() == before


def test_a_rewritten_file_hints_at_the_kiosk(sticks: Sticks) -> None:
    sticks.model.write_bytes(b"sanitised")
    _, _, talk = sticks.check(1, 2)
    assert "kiosk" in talk
    assert "copy-only" in talk
