"""`appliance inspect --kiosk` lists exactly the files of a medium, for the allow-list of a scanning station."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from appliance.builder.compare.allow_list import AllowedFile, format_csv
from signing.digest import sha256
from tests.attacks.harness import command
from tests.toy import build_toy


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    workspace, path = build_toy(tmp_path_factory.mktemp("workspace"))
    return workspace.root_file, path


def rows(root: Path, path: Path) -> list[dict[str, str]]:
    answer = command("inspect", path, "--trust", root, "--kiosk")
    assert answer.code == 0, answer.talk
    return list(csv.DictReader(answer.out.splitlines()))


def test_each_file_of_the_medium_is_listed_once_with_its_length_and_digest(made: tuple[Path, Path]) -> None:
    root, path = made
    listed = rows(root, path)
    files = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert [row["path"] for row in listed] == sorted(files)
    assert {row["path"]: (int(row["size"]), row["sha256"]) for row in listed} == {
        name: (len(data), sha256(data)) for name, data in files.items()
    }
    assert list(listed[0]) == ["path", "size", "sha256", "kind", "licence"]


def test_kind_and_licence_are_those_of_the_bundle_s_files(made: tuple[Path, Path]) -> None:
    root, path = made
    kinds = {row["kind"]: row["licence"] for row in rows(root, path)}
    assert kinds["model"] == "Apache-2.0"
    assert {"manifest", "contents", "metadata", "target", "attestation", "boot", "layout", "wheel"} <= kinds.keys()


def test_blobs_of_another_stick_are_listed_too(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, path = made
    whole = rows(root, path)
    stick = shutil.copytree(path, tmp_path / "stick")
    model = next(row["path"] for row in whole if row["kind"] == "model")
    (stick / model).unlink()
    assert rows(root, stick) == whole


def test_litter_is_not_listed(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, path = made
    stick = shutil.copytree(path, tmp_path / "stick")
    (stick / "letter.docx").write_bytes(b"private")
    assert "letter.docx" not in {row["path"] for row in rows(root, stick)}


def test_a_file_that_was_not_signed_gets_into_no_list(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, path = made
    stick = shutil.copytree(path, tmp_path / "stick")
    (stick / "blobs/sha256/virus.exe").write_bytes(b"not signed")
    answer = command("inspect", stick, "--trust", root, "--kiosk")
    assert (answer.code, answer.out) == (4, "")


def test_the_same_list_in_json(made: tuple[Path, Path]) -> None:
    root, path = made
    answer = json.loads(command("inspect", path, "--trust", root, "--kiosk", "--json").out)
    assert [row["path"] for row in answer["files"]] == [row["path"] for row in rows(root, path)]


@pytest.mark.parametrize("licence", ["=cmd()", "+1", "-1", "@x"])
def test_no_licence_is_a_formula_for_a_spreadsheet(licence: str) -> None:
    lines = format_csv([AllowedFile("a,b", 1, sha256(b"x"), "model", licence)])
    assert lines[1] == f'"a,b",1,{sha256(b"x")},model,\'{licence}'
