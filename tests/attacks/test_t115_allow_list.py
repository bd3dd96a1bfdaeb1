"""T115: a file that nobody signed gets into the list that a scanning station lets through."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bundles.medium_check import CheckedMedium
from tests.attacks.harness import Answer, command, guard_off, row
from tests.toy import build_toy

ROW = row(115)
STRANGE = "metadata/virus.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    workspace, path = build_toy(tmp_path_factory.mktemp("workspace"))
    return workspace.root_file, path


def listed(root: Path, stick: Path) -> Answer:
    return command("inspect", stick, "--trust", root, "--kiosk")


@pytest.fixture
def stick(made: tuple[Path, Path], tmp_path: Path) -> Path:
    stick = shutil.copytree(made[1], tmp_path / "stick")
    (stick / STRANGE).write_bytes(b"not signed")
    return stick


def test_unattacked_medium_is_listed(made: tuple[Path, Path]) -> None:
    answer = listed(*made)
    assert answer.code == 0
    assert answer.out.startswith("path,size,sha256,kind,licence\n")


def test_attacked_by_a_file_in_a_covered_folder(made: tuple[Path, Path], stick: Path) -> None:
    answer = listed(made[0], stick)
    assert (answer.code, answer.out) == (ROW.exit[0], "")
    assert "layout.unlisted" in answer.talk
    assert STRANGE in answer.talk


def test_unguarded_it_stands_in_the_list(made: tuple[Path, Path], stick: Path) -> None:
    with guard_off(ROW.guard, lambda *_: CheckedMedium(None, ())):
        answer = listed(made[0], stick)
    assert answer.code == 0
    assert f"{STRANGE},10," in answer.out
