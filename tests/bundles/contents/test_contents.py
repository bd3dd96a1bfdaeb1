"""`contents.json` has one spelling and refuses every other."""

from __future__ import annotations

import pytest

from bundles.bundle import open_bundle
from bundles.contents.contents_json import parse_contents, write_contents
from bundles.contents.paths import check_path, check_unique
from bundles.oci.layout import blob_path
from signing.errors import ApplianceError, NotTrustedError
from signing.floors import Floors
from signing.strictjson import Json, load, to_file
from tests.toy import NOW, build_toy


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    workspace, path = build_toy(tmp_path_factory.mktemp("workspace"))
    bundle = open_bundle(path, workspace.root_file.read_bytes(), Floors(), NOW).value
    return (path / blob_path(bundle.config.sha256)).read_bytes()


def test_contents_read_back_equal(data: bytes) -> None:
    assert write_contents(parse_contents(data)) == data


def test_model_says_how_long_its_embeddings_are_and_one_that_chats_says_nothing(data: bytes) -> None:
    assert b'"embedding"' not in data
    assert parse_contents(data).models[0].embedding == 0
    value = load(data, "x")
    value["models"][0]["embedding"] = 384
    found = parse_contents(to_file(value))
    assert found.models[0].embedding == 384
    assert write_contents(found) == to_file(value)


def _set(*path: str | int, to: Json) -> Json:
    return path, to


CHANGES = {
    "an absolute path": _set("files", 0, "path", to="/etc/passwd"),
    "a path with ..": _set("files", 0, "path", to="a/../b"),
    "a hidden path": _set("files", 0, "path", to=".git/config"),
    "a reserved name": _set("files", 0, "path", to="adapters/con.txt"),
    "an unknown kind": _set("files", 0, "kind", to="script"),
    "a setuid mode": _set("files", 0, "mode", to=0o4755),
    "sizes that do not add up": _set("files", 0, "size", to=1),
    "a negative size": _set("files", 0, "size", to=-1),
    "an unknown field": _set("x", to=1),
    "an unknown field of a file": _set("files", 0, "x", to=1),
    "a missing field": _set("needs", to={}),
    "a malformed digest": _set("files", 0, "sha256", to="abc"),
    "an empty chunk": _set("files", 0, "chunks", to=[["0" * 64, 0]]),
    "a chunk over 64 MiB": _set("files", 0, "chunks", to=[["0" * 64, (64 << 20) + 1]]),
    "a model that is not listed": _set("models", 0, "path", to="models/other.gguf"),
    "true instead of a number": _set("serve", "slots", to=True),
    "an embedding of no numbers": _set("models", 0, "embedding", to=0),
    "an escape sequence in a text": _set("models", 0, "licence", to="\x1b[31m"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_broken_rule_is_refused(data: bytes, change: Json) -> None:
    path, to = change
    value = load(data, "x")
    at = value
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = to
    with pytest.raises(NotTrustedError):
        parse_contents(to_file(value))


def test_unsorted_or_doubled_files_are_refused(data: bytes) -> None:
    value = load(data, "x")
    for files in (value["files"][::-1], [value["files"][0], *value["files"]]):
        with pytest.raises(NotTrustedError):
            parse_contents(to_file({**value, "files": files}))


def test_newer_format_names_the_sheet(data: bytes) -> None:
    value = {**load(data, "x"), "format": 3, "min_reader": 3}
    with pytest.raises(ApplianceError) as caught:
        parse_contents(to_file(value))
    assert caught.value.code == "contents.newer-format"
    assert "sh sheet.sh STICK" in caught.value.hint


@pytest.mark.parametrize(
    "path",
    ["", "a//b", "a/", "/a", "a/./b", "a b", "a\\b", "a:b", "é", "-a", "a.", "aux", "a/NUL.txt", "x" * 300, None, 3],
)
def test_path_outside_the_grammar_is_refused(path: object) -> None:
    with pytest.raises(NotTrustedError):
        check_path(path)


@pytest.mark.parametrize("paths", [["a", "A"], ["a/b", "a"], ["a", "a/b"], ["x/Y/z", "x/y"]])
def test_colliding_paths_are_refused(paths: list[str]) -> None:
    with pytest.raises(NotTrustedError):
        check_unique(paths, "x")


def test_wheel_names_are_in_the_grammar() -> None:
    assert check_path("wheels/llama_cpp_python-0.3.36+appliance.1a2b3c4d-py3-none-manylinux_2_34_x86_64.whl")
