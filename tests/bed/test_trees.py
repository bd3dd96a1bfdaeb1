"""The trees of hosts are built once, whole or not at all, and are what a small site has."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bed.__main__ import main
from tests.bed.cache import bed_folder, built
from tests.bed.fixtures import tree_folder
from tests.bed.trees import DEBIAN_12, DEBIAN_13, TREES, build


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRGAP_APPLIANCE_CACHE", str(tmp_path))
    return bed_folder()


def refuse_to_say(text: str) -> None:
    raise AssertionError(text)


@pytest.mark.parametrize("name", list(TREES))
def test_built_tree_is_small_and_is_not_built_again(name: str) -> None:
    folder = tree_folder(TREES[name])
    assert build(TREES[name], refuse_to_say) == folder
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < 350 << 20


@pytest.mark.parametrize("name", list(TREES))
def test_tree_names_no_mirror_no_proxy_and_no_key(name: str) -> None:
    folder = tree_folder(TREES[name])
    settings = [path for path in (folder / "etc" / "apt").rglob("*") if path.is_file() and "trusted" not in str(path)]
    assert [path for path in settings if b"://" in path.read_bytes()] == []
    assert list((folder / "etc" / "ssh").glob("ssh_host_*")) == []
    assert (folder / "etc" / "machine-id").read_bytes() == b""


def test_everything_that_shapes_a_tree_is_in_its_name() -> None:
    others = [
        DEBIAN_13,
        replace(DEBIAN_12, packages=(*DEBIAN_12.packages, "zstd")),
        replace(DEBIAN_12, hooks=(*DEBIAN_12.hooks, "true")),
        replace(DEBIAN_12, suite="sid"),
    ]
    keys = {tree.key() for tree in (DEBIAN_12, *others)}
    assert len(keys) == 5
    assert DEBIAN_12.key() == replace(DEBIAN_12).key()


def test_build_that_fails_leaves_nothing_that_looks_finished(empty_cache: Path) -> None:
    said: list[str] = []

    def fail(path: Path) -> None:
        path.mkdir()
        (path / "half").write_text("half")
        raise RuntimeError("the power is gone")

    with pytest.raises(RuntimeError, match="power"):
        built("thing-1", fail, said.append, "a thing")
    assert not (empty_cache / "thing-1").exists()
    made = built("thing-1", lambda path: path.mkdir(), said.append, "a thing")
    assert list(made.iterdir()) == []
    assert said == ["bed: building a thing", "bed: building a thing", "bed: thing-1 took 0 s"]


def test_two_builders_build_once(empty_cache: Path) -> None:
    calls = []

    def make(path: Path) -> None:
        calls.append(path)
        time.sleep(0.2)
        path.write_text("made")

    threads = [threading.Thread(target=built, args=("thing-2", make, lambda _: None, "a thing")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert (empty_cache / "thing-2").read_text() == "made"


def test_command_tells_what_can_be_built(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "debian-3"]) == 2
    assert main([]) == 2
    assert "debian-12" in capsys.readouterr().err


def test_second_build_by_command_builds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    tree_folder(DEBIAN_12)  # skips where there is none
    assert main(["build", "debian-12"]) == 0
    assert capsys.readouterr().err.startswith("bed: debian-12 ready (")
