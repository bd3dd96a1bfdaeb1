"""Commands read several sticks as one bundle, and end with 5 and the numbers of what is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bundles.bundle import open_bundle
from bundles.oci.layout import Layout, blob_path
from bundles.parity.streams import plan_parity, write_parity
from bundles.report import format_size
from bundles.stick.media_set import MediaSet
from signing.floors import Floors
from tests.attacks.harness import Answer, command
from tests.sim.sets.stick_folders import both_bundles, deal_blobs
from tests.toy import NOW, build_toy


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path], Path]:
    """The root's file, three sticks of a bundle, and one stick of two bundles."""
    folder = tmp_path_factory.mktemp("made")
    workspace, first = build_toy(folder / "workspace", "1.0.0")
    old = Path(shutil.copytree(first, folder / "old"))
    _, dist = build_toy(folder / "workspace", "1.1.0", note="another")
    root = workspace.root_file.read_bytes()
    found = open_bundle(dist, root, Floors(), NOW)
    sticks = deal_blobs(dist, found.value, [folder / f"stick{number}" for number in (1, 2, 3)])
    return workspace.root_file, sticks, both_bundles(old, dist, folder / "both", root)


def run(name: str, root: Path, *words: str | Path) -> Answer:
    return command(name, *words, "--trust", root)


def test_verify_of_all_sticks_in_any_order_is_one_answer(made: tuple[Path, list[Path], Path]) -> None:
    root, sticks, _ = made
    answer = run("verify", root, *reversed(sticks), "--json")
    assert answer.code == 0, answer.talk
    report = json.loads(answer.out)
    assert (report["verified"], report["version"], len(report["media"])) == (True, "1.1.0", 3)
    assert "bundles" not in report
    assert "every byte is what was signed" in run("verify", root, *sticks).out


def test_verify_without_one_stick_is_5_and_names_the_one_to_insert(made: tuple[Path, list[Path], Path]) -> None:
    root, sticks, _ = made
    answer = run("verify", root, sticks[0], sticks[2])
    assert answer.code == 5
    assert "on a stick that is not here (stick.next)" in answer.talk
    assert "insert stick 2" in answer.talk
    [error] = json.loads(run("verify", root, sticks[0], sticks[2], "--json").out)["errors"]
    assert error["code"] == "stick.next"


def test_verify_of_a_stick_with_two_bundles_judges_both(made: tuple[Path, list[Path], Path]) -> None:
    root, _, both = made
    answer = run("verify", root, both)
    assert answer.code == 0, answer.talk
    assert [line.split()[2] for line in answer.out.splitlines() if line.startswith("verified")] == ["1.0.0", "1.1.0"]
    report = json.loads(run("verify", root, both, "--json").out)
    assert [one["version"] for one in report["bundles"]] == ["1.0.0", "1.1.0"]
    shown = [line.split(":")[1] for line in answer.out.splitlines() if line.startswith("manifest")]
    assert shown == [one["manifest"] for one in report["bundles"]]


def test_damage_of_either_bundle_is_the_answer_for_the_stick(
    made: tuple[Path, list[Path], Path], tmp_path: Path
) -> None:
    root, _, both = made
    stick = Path(shutil.copytree(both, tmp_path / "both"))
    old = open_bundle(stick, root.read_bytes(), Floors(), NOW, select="toy-1.0.0").value
    (stick / blob_path(old.contents.of_kind("wheel")[0].chunks[0].sha256)).write_bytes(b"x")
    answer = run("verify", root, stick)
    assert (answer.code, "wheels/wheel.txt" in answer.talk) == (3, True)


def test_plan_counts_what_the_parity_adds_to_the_media(made: tuple[Path, list[Path], Path], tmp_path: Path) -> None:
    root, sticks, _ = made
    bundle = open_bundle(sticks[0], root.read_bytes(), Floors(), NOW).value
    here = [Path(shutil.copytree(stick, tmp_path / stick.name)) for stick in sticks]
    for stick in here:  # this bundle's runtime runs nowhere
        (stick / blob_path(bundle.contents.of_kind("runtime")[0].chunks[0].sha256)).unlink(missing_ok=True)
    shares = [[chunk for chunk in bundle.blobs[2:] if (stick / blob_path(chunk.sha256)).exists()] for stick in here]
    longest = max(sum(chunk.size for chunk in share) for share in shares)
    parity = Path(shutil.copytree(here[0], tmp_path / "parity"))
    write_parity(plan_parity(shares), MediaSet([Layout(stick) for stick in here]).open_chunk, Layout(parity))
    for media, size in ((here, 0), ([*here, parity], longest)):
        answer = run("plan", root, *media, "--json")
        assert answer.code in (0, 6), answer.talk
        assert json.loads(answer.out)["parity_bytes"] == size
        shown = run("plan", root, *media).out
        assert (f"the parity adds {format_size(longest)} to the media" in shown) == bool(size)


@pytest.mark.parametrize("name", ["inspect", "plan"])
def test_one_of_two_bundles_must_be_named(name: str, made: tuple[Path, list[Path], Path]) -> None:
    root, _, both = made
    answer = run(name, root, both)
    assert answer.code == 2
    assert "toy-1.0.0, toy-1.1.0" in answer.talk
    assert "--select NAME-VERSION" in answer.talk


def test_inspect_shows_the_selected_one_and_the_bills_from_any_stick(made: tuple[Path, list[Path], Path]) -> None:
    root, sticks, both = made
    answer = run("inspect", root, both, "--select", "toy-1.0.0")
    assert (answer.code, "toy 1.0.0" in answer.out) == (0, True)
    assert "not on this medium" not in run("inspect", root, *sticks).talk


def test_plan_reads_the_heads_of_models_from_whichever_stick_has_them(
    made: tuple[Path, list[Path], Path], tmp_path: Path
) -> None:
    root, sticks, _ = made
    contents = open_bundle(sticks[0], root.read_bytes(), Floors(), NOW).value.contents
    sticks = [Path(shutil.copytree(stick, tmp_path / stick.name)) for stick in sticks]
    for stick in sticks:  # this bundle's runtime runs nowhere
        (stick / blob_path(contents.of_kind("runtime")[0].chunks[0].sha256)).unlink(missing_ok=True)
    card = tmp_path / "card.json"
    card.write_text(command("host", "probe", "--json").out)
    answer = run("plan", root, *sticks, "--host", card, "--json")
    assert answer.code in (0, 6), answer.talk
    assert [one["name"] for one in json.loads(answer.out)["models"]] == ["toy"]
    assert "it is on a stick that is not here" in answer.talk
    model = contents.of_kind("model")[0]
    lacking = [stick for stick in sticks if not (stick / blob_path(model.chunks[0].sha256)).exists()]
    assert run("plan", root, *lacking, "--host", card).code == 5


def test_waiting_is_no_default_without_a_terminal(made: tuple[Path, list[Path], Path]) -> None:
    root, sticks, _ = made
    for words in ((), ("--no-wait",)):
        assert run("verify", root, sticks[0], *words).code == 5
