"""The same lock has the same bytes, and a field that the reader does not know is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.builder.lock.lockfile import (
    Lock,
    Locked,
    LockedClosure,
    LockedMember,
    changes,
    format_lock,
    lock_path,
    read_lock,
    sort_key,
    write_lock,
)
from appliance.builder.recipe.reader import load_recipe
from appliance.builder.recipe.recipe import Acceptance, Recipe
from appliance.builder.resolve.coverage import check_covers
from appliance.builder.resolve.wheel_closure import host_requires
from appliance.builder.sources import HfSource, parse_source
from appliance.resources import recipes_path
from signing.digest import sha256
from signing.errors import UsageError
from tests.appliance.web import write_recipe

RECIPES = sorted(path for path in recipes_path().glob("*.yaml") if lock_path(path).exists())


def _entry(kind: str, name: str, version: str = "1.0", **more: Any) -> Locked:
    data = f"{kind} {name} {version}".encode()
    return Locked(kind, name, version, f"{name}-{version}.whl", len(data), sha256(data), "MIT", **more)


def _lock() -> Lock:
    member = LockedMember("pack/tiny.gguf", 5, sha256(b"GGUF!"))
    model = _entry("model", "tiny", source="pypi:pack==1.0#pack/tiny.gguf", member=member)
    entries = [
        _entry("build-tool", "cmake"),
        replace(model, licence="Apache-2.0"),
        _entry("sdist", "llama-cpp-python", "0.3.36"),
        _entry("tool", "uv"),
        _entry("wheel", "click"),
        _entry("wheel", "numpy", python="3.11"),
    ]
    return Lock(
        1_700_000_000, (LockedClosure("3.11", "x86_64", "2.36", ("click>=8",)),), tuple(sorted(entries, key=sort_key))
    )


def test_lock_is_read_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "toy.lock.json"
    assert write_lock(path, _lock())
    assert read_lock(path) == _lock()
    assert path.read_bytes() == format_lock(_lock())
    assert list(tmp_path.iterdir()) == [path]


def test_day_of_the_last_release_is_read_back_and_pins_nothing(tmp_path: Path) -> None:
    lock = _lock()
    dated = replace(lock, entries=tuple(replace(entry, last_release="2026-02-28") for entry in lock.entries))
    write_lock(tmp_path / "toy.lock.json", dated)
    assert [entry.last_release for entry in read_lock(tmp_path / "toy.lock.json").entries] == ["2026-02-28"] * 6
    assert dated == lock
    assert changes(lock, dated) == ()


@pytest.mark.parametrize("day", ["", "yesterday", "2026-02-30", "20260228", "2026-02-28T00:00:00Z"])
def test_lock_with_a_day_that_is_none_is_refused(tmp_path: Path, day: str) -> None:
    value = json.loads(format_lock(_lock()))
    value["entries"][0]["last_release"] = day
    path = tmp_path / "toy.lock.json"
    path.write_text(json.dumps(value))
    with pytest.raises(UsageError, match="the day"):
        read_lock(path)


def test_lock_with_nothing_new_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "toy.lock.json"
    write_lock(path, _lock())
    before = path.stat()
    assert not write_lock(path, _lock())
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_model_in_a_wheel_is_used_by_its_own_size_and_digest() -> None:
    model = _lock().find("model", "tiny")
    assert model is not None
    assert (model.used.file, model.used.size, model.used.sha256) == ("tiny.gguf", 5, sha256(b"GGUF!"))
    assert model.fetched.file == "tiny-1.0.whl"


def test_each_python_gets_the_wheels_of_all_and_its_own() -> None:
    assert [entry.name for entry in _lock().wheels_for("3.11")] == ["click", "numpy"]
    assert [entry.name for entry in _lock().wheels_for("3.13")] == ["click"]


def _no_format(value: dict[str, Any]) -> None:
    value["format"] = 2


def _unknown_field(value: dict[str, Any]) -> None:
    value["entries"][0]["url"] = "x"


def _unknown_kind(value: dict[str, Any]) -> None:
    value["entries"][0]["kind"] = "script"


def _bad_digest(value: dict[str, Any]) -> None:
    value["entries"][0]["sha256"] = "ABC"


def _negative_size(value: dict[str, Any]) -> None:
    value["entries"][0]["size"] = -1


def _size_as_text(value: dict[str, Any]) -> None:
    value["entries"][0]["size"] = "1"


def _escaping_file(value: dict[str, Any]) -> None:
    value["entries"][0]["file"] = "../cmake.whl"


def _lost_field(value: dict[str, Any]) -> None:
    del value["entries"][0]["sha256"]


def _twice(value: dict[str, Any]) -> None:
    value["entries"].insert(0, value["entries"][0])


def _shuffled(value: dict[str, Any]) -> None:
    value["entries"].reverse()


def _no_object(value: dict[str, Any]) -> None:
    value["entries"][0] = 7


def _nested_file(value: dict[str, Any]) -> None:
    value["entries"][0]["file"] = "folder/cmake.whl"


def _unknown_source(value: dict[str, Any]) -> None:
    value["entries"][0]["source"] = "pypi:cmake"


def _date_after_all_wheels(value: dict[str, Any]) -> None:
    value["source_date_epoch"] = 1 << 62


@pytest.mark.parametrize(
    "spoil",
    [
        _no_format,
        _unknown_field,
        _unknown_kind,
        _bad_digest,
        _negative_size,
        _size_as_text,
        _escaping_file,
        _nested_file,
        _unknown_source,
        _date_after_all_wheels,
        _lost_field,
        _twice,
        _shuffled,
        _no_object,
    ],
)
def test_lock_that_is_not_understood_is_refused_as_a_whole(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None]
) -> None:
    value = json.loads(format_lock(_lock()))
    spoil(value)
    path = tmp_path / "toy.lock.json"
    path.write_text(json.dumps(value))
    with pytest.raises(UsageError) as caught:
        read_lock(path)
    assert (caught.value.code, caught.value.exit_code) == ("lock.invalid", 2)
    assert caught.value.hint.endswith(f"remove it and run: appliance lock {tmp_path / 'toy.yaml'}")


def test_lock_with_a_key_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "toy.lock.json"
    path.write_bytes(format_lock(_lock()).replace(b'"format": 1,', b'"format": 1, "format": 1,'))
    with pytest.raises(UsageError, match=r"lock\.invalid"):
        read_lock(path)


def test_missing_lock_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_lock(tmp_path / "toy.lock.json")
    assert (caught.value.code, caught.value.hint) == ("lock.missing", f"appliance lock {tmp_path / 'toy.yaml'}")


def test_lock_covers_its_recipe_and_everything_that_a_changed_one_lacks_is_named(tmp_path: Path) -> None:
    source = "pypi:pack==1.0#pack/tiny.gguf"
    path = write_recipe(tmp_path, source)
    check_covers(_lock(), load_recipe(path), path, ["click>=8"])
    changed = write_recipe(
        tmp_path,
        "pypi:pack==2.0#pack/tiny.gguf",
        runtime="runtime: {llama_cpp_python: 0.3.37}",
        targets='targets: [{os: debian-13, arch: x86_64, python: ["3.11", "3.13"]}]',
    )
    with pytest.raises(UsageError) as caught:
        check_covers(_lock(), load_recipe(changed), changed, ["click>=8"])
    errors = [caught.value, *caught.value.others]
    assert {error.code for error in errors} == {"lock.stale"}
    assert {error.hint for error in errors} == {f"appliance lock {changed}"}
    assert [error.subject.rpartition(".json ")[2] for error in errors] == [
        "model tiny",
        "sdist llama-cpp-python",
        "wheels for Python 3.11",
        "wheels for Python 3.13",
    ]


def test_new_requirement_of_this_program_makes_a_lock_stale(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "pypi:pack==1.0#pack/tiny.gguf")
    with pytest.raises(UsageError, match=r"lock\.stale"):
        check_covers(_lock(), load_recipe(path), path, ["click>=8", "httpx"])


def test_changes_are_the_new_the_removed_and_the_changed_entries() -> None:
    before = _lock()
    entries = [entry for entry in before.entries if entry.name not in ("uv", "click")]
    after = replace(before, entries=(*entries, _entry("wheel", "click", "2.0"), _entry("wheel", "rich")))
    found = [
        (change.before and change.before.name, change.after and change.after.version)
        for change in changes(before, after)
    ]
    assert found == [("uv", None), ("click", "2.0"), (None, "1.0")]
    assert changes(before, before) == ()
    assert len(changes(None, before)) == len(before.entries)


def with_acceptance(recipe: Recipe) -> Recipe:
    """The recipe, as if somebody had accepted the terms of every model."""
    accepted = Acceptance(by="a test", date="2026-01-02")
    models = tuple(model.model_copy(update={"accepted": accepted}) for model in recipe.models)
    return recipe.model_copy(update={"models": models})


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_lock_in_this_repository_covers_its_recipe_and_holds_no_address_of_a_registry(recipe: Path) -> None:
    path = lock_path(recipe)
    lock = read_lock(path)
    assert path.read_bytes() == format_lock(lock)
    check_covers(lock, with_acceptance(load_recipe(recipe)), recipe, host_requires())
    own = {entry.source for entry in lock.of_kind("model") if entry.source and entry.source.startswith("https://")}
    assert set(re.findall(r"[a-z]+://[^\"]+", path.read_text())) <= own


def test_model_in_this_repository_is_the_known_one() -> None:
    model = read_lock(recipes_path() / "smollm2.lock.json").find("model", "smollm2-135m")
    assert model is not None
    assert model.used.size == 98_362_432
    assert model.used.sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def test_recipe_without_a_lock_is_one_of_a_hub_whose_commit_its_user_locks() -> None:
    without = [path for path in recipes_path().glob("*.yaml") if not lock_path(path).exists()]
    assert [path.stem for path in without] == ["qwen2.5-0.5b"]
    (model,) = load_recipe(without[0]).models
    source = parse_source(model.source_text)
    assert isinstance(source, HfSource)
    assert source.commit == ""


def test_repository_locks_no_os_packages_because_their_pool_moves() -> None:
    for recipe in RECIPES:
        assert read_lock(lock_path(recipe)).of_kind("os-package") == ()
