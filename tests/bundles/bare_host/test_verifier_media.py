"""The verifier of a bare host reads several sticks as `appliance verify` does, and finds the program on one of them."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.keys.workspace import Workspace
from bundles.bare_host.command_line import main
from bundles.bundle import Bundle, open_bundle
from bundles.oci.layout import BLOB_FOLDER, STICK_FILE, blob_path
from bundles.stick.card import StickBundle, StickCard, name_set, runs_of, write_card
from signing.digest import Digest
from signing.floors import Floors
from tests.attacks.harness import command
from tests.bundles.bare_host.program import PYTHON, program_sources
from tests.sim.sets.stick_folders import both_bundles, deal_blobs
from tests.toy import NOW, build_toy

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path]:
    folder = tmp_path_factory.mktemp("toy")
    return build_toy(folder, extra=program_sources(folder), python=PYTHON)


@pytest.fixture
def root(toy: tuple[Workspace, Path]) -> Path:
    return toy[1] / "metadata/1.root.json"


@pytest.fixture
def bundle(toy: tuple[Workspace, Path], root: Path) -> Bundle:
    return open_bundle(toy[1], root.read_bytes(), Floors(), NOW).value


@pytest.fixture
def sticks(toy: tuple[Workspace, Path], bundle: Bundle, tmp_path: Path) -> list[Path]:
    return deal_blobs(toy[1], bundle, [tmp_path / "one", tmp_path / "two"])


def place_program(sticks: list[Path], bundle: Bundle) -> None:
    """Place the blobs of the bootstrap set as the writer of sticks does: on the first; and state that."""
    first, second = sticks
    for file in bundle.contents.files:
        for chunk in file.chunks if file.bootstrap else ():
            if (second / blob_path(chunk.sha256)).exists():
                shutil.move(second / blob_path(chunk.sha256), first / blob_path(chunk.sha256))
    held = [{Digest(path.name) for path in (stick / BLOB_FOLDER).iterdir()} for stick in sticks]
    placement = tuple((runs_of(bundle, digests),) for digests in held)
    named = StickBundle(bundle.contents.name, bundle.contents.version, bundle.manifest)
    for number, stick in enumerate(sticks, 1):
        card = StickCard(name_set([bundle.manifest]), number, len(sticks), (named,), placement)
        (stick / STICK_FILE).write_bytes(write_card(card))


def pin(folder: Path) -> list[str]:
    return ["--pin", "ab" * 32, "--prefix", str(folder / "host")]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_all_sticks_give_one_answer_as_the_command_does(
    sticks: list[Path], root: Path, capsys: Captured, order: tuple[int, ...]
) -> None:
    paths = [str(sticks[at]) for at in order]
    assert main([*paths, "--trust", str(root)]) == 0
    assert capsys.readouterr().out == command("verify", *paths, "--trust", root).out


@pytest.mark.parametrize("alone", [0, 1])
def test_one_stick_of_two_ends_with_5_and_the_words_of_the_command(
    sticks: list[Path], root: Path, capsys: Captured, alone: int
) -> None:
    code = main([str(sticks[alone]), "--trust", str(root)])
    said = capsys.readouterr()
    answer = command("verify", sticks[alone], "--no-wait", "--trust", root)
    assert (code, said.out, said.err) == (5, "", answer.talk)
    assert answer.code == 5


def test_program_is_taken_from_the_sticks_that_hold_it(
    sticks: list[Path], root: Path, capsys: Captured, tmp_path: Path
) -> None:
    paths = list(map(str, sticks))
    assert main([*paths, "--trust", str(root), *pin(tmp_path)]) == 0
    typed = capsys.readouterr().out.splitlines()[-1]
    done = subprocess.run(["sh", "-c", typed], capture_output=True, text=True)
    assert json.loads(done.stdout)["arguments"][:3] == ["install", *paths]


def test_first_stick_alone_starts_an_install_that_asks_for_the_other(
    toy: tuple[Workspace, Path], bundle: Bundle, root: Path, capsys: Captured, tmp_path: Path
) -> None:
    sticks = deal_blobs(toy[1], bundle, [tmp_path / "one", tmp_path / "two"])
    place_program(sticks, bundle)
    assert main([str(sticks[0]), "--trust", str(root), *pin(tmp_path)]) == 0
    said = capsys.readouterr()
    [typed] = said.out.splitlines()
    assert shlex.split(typed)[5:7] == ["install", str(sticks[0])]
    assert "what is here is what was signed; the install asks for the other sticks" in said.err
    assert "every byte" not in said.out


def test_stick_without_the_program_asks_for_the_one_that_has_it(
    toy: tuple[Workspace, Path], bundle: Bundle, root: Path, capsys: Captured, tmp_path: Path
) -> None:
    sticks = deal_blobs(toy[1], bundle, [tmp_path / "one", tmp_path / "two"])
    place_program(sticks, bundle)
    assert main([str(sticks[1]), "--trust", str(root), *pin(tmp_path)]) == 5
    said = capsys.readouterr()
    assert said.out == ""
    assert "stick 1" in said.err
    assert not (tmp_path / "host").exists()


def test_damage_on_a_first_stick_is_never_passed_over(
    toy: tuple[Workspace, Path], bundle: Bundle, root: Path, capsys: Captured, tmp_path: Path
) -> None:
    sticks = deal_blobs(toy[1], bundle, [tmp_path / "one", tmp_path / "two"])
    place_program(sticks, bundle)
    marked = {chunk.sha256 for file in bundle.contents.files if file.bootstrap for chunk in file.chunks}
    blob = next(
        path
        for path in (sticks[0] / "blobs/sha256").iterdir()
        if path.name not in {*marked, bundle.manifest, bundle.config.sha256}
    )
    blob.write_bytes(bytes(blob.stat().st_size))
    assert main([str(sticks[0]), "--trust", str(root), *pin(tmp_path)]) == 3
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "host").exists()


def test_of_several_bundles_on_a_stick_one_is_selected(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    extra = program_sources(tmp_path / "wheels")
    workspace, first = build_toy(tmp_path / "w", extra=extra, python=PYTHON)
    _, second = build_toy(tmp_path / "w", "2.0.0", "another note", extra=extra, python=PYTHON)
    stick = both_bundles(first, second, tmp_path / "stick", workspace.root_file.read_bytes())
    typed = [str(stick), "--trust", str(workspace.root_file), *pin(tmp_path)]
    assert main(typed) == 2
    assert "toy-2.0.0" in capsys.readouterr().err
    assert not (tmp_path / "host").exists()
    assert main([*typed, "--select", "toy-2.0.0"]) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[5:8] == ["install", str(stick), "--select"]
    assert words[8] == "toy-2.0.0"


@pytest.mark.parametrize(("name", "code"), [("it's", "prefix.characters"), ("a file", "prefix.not-a-folder")])
def test_prefix_that_no_install_takes_is_refused_before_anything_is_copied(
    sticks: list[Path], root: Path, capsys: Captured, tmp_path: Path, name: str, code: str
) -> None:
    (tmp_path / "a file").write_bytes(b"")
    paths = list(map(str, sticks))
    assert main([*paths, "--trust", str(root), "--pin", "ab" * 32, "--prefix", str(tmp_path / name)]) == 2
    said = capsys.readouterr()
    assert (code in said.err, said.out) == (True, "")
    assert not (tmp_path / "it's").exists()
