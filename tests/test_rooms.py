"""What a newcomer may rely on: small folders, files and functions, one name for one thing, and plain words."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tests.prose import CODE, MAX_FILE_LINES, MAX_FUNCTION_LINES, TOP, faults, functions, python_files

MAX_FILES_IN_A_FOLDER = 16
# One file for each command, for each row of the table of threats, for each part of the test hosts.
ONE_FILE_EACH = {"appliance/cli", "tests/attacks", "tests/bed"}
PLACES = [TOP / name for name in (*CODE, "tests")]


def test_no_folder_holds_more_files_than_one_look_takes_in() -> None:
    held = Counter(str(path.parent.relative_to(TOP)) for path in python_files(PLACES))
    assert {folder: count for folder, count in held.items() if count > MAX_FILES_IN_A_FOLDER}.keys() <= ONE_FILE_EACH


def test_no_file_is_longer_than_a_sitting() -> None:
    lines = {str(path.relative_to(TOP)): path.read_text("utf-8").count("\n") for path in python_files(PLACES)}
    assert {name: count for name, count in lines.items() if count > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{path.relative_to(TOP)}:{name} {length}"
        for path in python_files([TOP / "tests"])  # the others: test_names_and_sentences_are_plain
        for name, length in functions(path)
        if length > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_a_class_name_stands_once_in_the_house() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in python_files([TOP / name for name in CODE]):
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(TOP)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize("package", CODE)
def test_names_and_sentences_are_plain(package: str) -> None:
    assert [fault for path in python_files([TOP / package]) for fault in faults(path)] == []


def test_every_fault_of_the_list_is_found(tmp_path: Path) -> None:
    long = " ".join(["word"] * 26)
    body = "\n".join(["    x = 1"] * MAX_FUNCTION_LINES)
    text = f'"""It tells."""\n# {long}\ndef spell(wish):\n    """{long}."""\n\n\ndef tall():\n{body}\n'
    path = tmp_path / "bad.py"
    path.write_text(text)
    found = "\n".join(faults(path, tmp_path))
    for what in ("'tells': write", "the name spell", "the name wish", "26 words", "tall has 61 lines"):
        assert what in found
    assert found.count("26 words") == 2
