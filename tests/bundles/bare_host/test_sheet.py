"""The sheet fits on a card, says nothing but digits of its root, and is printed by a command."""

from __future__ import annotations

import io
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.builder.bare_host import boot_writer
from appliance.builder.bare_host.sheet import python_part, render_sheet
from appliance.keys.workspace import create_development
from signing.chain import read_root
from signing.roles import Root
from tests.attacks.harness import command
from tests.sim.bare import EACH_SHELL, SHELLS, follow
from tests.sim.tuf import USUAL, TufRepository, keys
from tests.toy import NOW, build_toy


def verifies_only() -> bytes:
    """An older verifier: it takes a stick and a root."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("__main__.py", "import os, sys; print(*sys.argv[1:3], os.path.basename(sys.argv[3]))\n")
    return buffer.getvalue()


VERIFIES_ONLY = verifies_only()


def root_of(count: int, threshold: int) -> Root:
    people = replace(USUAL, root=keys("root", count), root_threshold=threshold)
    return read_root(TufRepository(people).pinned, "root.json")


@pytest.mark.parametrize(("count", "threshold"), [(1, 1), (3, 2), (4, 3)])
def test_sheet_has_at_most_25_lines_of_72_columns(count: int, threshold: int) -> None:
    root = root_of(count, threshold)
    lines = render_sheet(root, 999_999_999).splitlines()
    assert len(lines) <= 25
    assert [line for line in lines if len(line) > 72 or not line.isascii() or line.rstrip() != line] == []
    text = "\n".join(lines)
    assert [key.fingerprint in text for key in root.roles["root"].keys.values()] == [True] * count
    assert f"m='{threshold}'" in text


def test_second_part_is_as_short() -> None:
    lines = python_part().splitlines()
    assert len(lines) <= 25
    assert [line for line in lines if len(line) > 72 or not line.isascii() or line.rstrip() != line] == []


@pytest.mark.parametrize("shell", EACH_SHELL)
@pytest.mark.parametrize(("words", "memory", "code"), [((), "", 2), (("no such",), "", 2), ((".",), "absent/", 1)])
def test_wrong_path_is_no_stick_to_keep_away_from(
    tmp_path: Path, shell: str, words: tuple[str, ...], memory: str, code: int
) -> None:
    text = render_sheet(root_of(1, 1), 1).replace("/dev/shm ", f"{tmp_path}/{memory} ")
    done = subprocess.run(
        [*SHELLS[shell], "-c", text, "sheet", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert done.stderr
    assert "REFUSED" not in done.stderr


def test_no_line_is_for_the_linter_or_left_to_fill_in() -> None:
    text = render_sheet(root_of(3, 2), 1) + python_part()
    assert "shellcheck" not in text
    assert "{" + "{" not in text


def test_command_prints_the_sheet_with_which_its_bundles_are_checked(tmp_path: Path) -> None:
    workspace, path = build_toy(tmp_path / "workspace")
    answer = command("trust", "sheet", "--workspace", workspace.path)
    assert answer.code == 0
    assert answer.out == render_sheet(workspace.root(), 1) + python_part()
    assert "DEVELOPMENT TRUST ROOT" in answer.talk
    done = follow(path, answer.out, "dash", tmp_path / "operator")
    assert done.returncode == 0, done.stderr
    newer = command("trust", "sheet", "--workspace", workspace.path, "--serial", "2").out
    assert follow(path, newer, "dash", tmp_path / "operator").stderr == "REFUSED: serial 1, not 2\n"


def test_sheet_for_a_verifier_that_only_verifies_asks_it_for_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot_writer, "build_verifier", lambda: VERIFIES_ONLY)
    workspace, path = build_toy(tmp_path / "workspace")
    answer = command("trust", "sheet", "--workspace", workspace.path)
    assert (answer.code, answer.out) == (0, render_sheet(workspace.root(), 1, pins=False))
    assert "only verifies" in answer.talk
    done = follow(path, answer.out, "dash", tmp_path / "operator", [])
    assert (done.returncode, done.stdout) == (0, f"{path} --trust root.json\n"), done.stderr
    # It prints a command that reads the root file there.
    [copies] = (tmp_path / "operator").glob("boot.*")
    assert (copies / "root.json").read_bytes() == workspace.root_file.read_bytes()


def test_there_is_no_sheet_before_anything_was_signed(tmp_path: Path) -> None:
    create_development(tmp_path, NOW)
    answer = command("trust", "sheet", "--workspace", tmp_path)
    assert (answer.code, answer.out) == (2, "")
    assert "appliance build" in answer.talk


def test_sheet_is_never_on_a_stick(tmp_path: Path) -> None:
    _, path = build_toy(tmp_path)
    assert [file for file in path.rglob("*") if file.is_file() and b"openssl dgst" in file.read_bytes()] == []
