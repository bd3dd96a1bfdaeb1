"""What a recipe may ask: parts to join, a hub's newest commit, terms that somebody accepted, further files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from appliance.builder.cache.content_store import Cache
from appliance.builder.lock.lockfile import Lock, Locked, read_lock, write_lock
from appliance.builder.lock.model_parts import concatenate
from appliance.builder.lock.pinned_fetch import fetch, fetch_concatenated
from appliance.builder.recipe import schema
from appliance.builder.recipe.reader import load_recipe
from appliance.builder.resolve.coverage import check_covers
from appliance.builder.resolve.resolver import lock_recipe
from appliance.builder.sources import download
from appliance.resources import recipes_path
from signing.digest import sha256
from signing.errors import ApplianceError, DamagedError, UsageError
from tests.appliance.web import PackageIndex, Site, sdist, serve, wheel, write_recipe
from tests.sim.odd_models import split_parts

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
OLD, NEW = "1" * 40, "2" * 40
DATA = b"GGUF" + bytes(range(256)) * 16
HUB = "hf:owner/repo#sub/tiny.gguf"


class Hub:
    """A stand-in that speaks the hub's protocol for one small file: redirect headers on HEAD, bytes on GET."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.env: dict[str, str] = {"HF_ENDPOINT": site.url}

    def publish(self, commit: str, data: bytes) -> None:
        headers = {"X-Repo-Commit": commit, "X-Linked-Etag": f'"{sha256(data)}"', "ETag": f'"{sha256(data)}"'}
        headers["X-Linked-Size"] = str(len(data))
        for revision in (commit, "main"):
            self.site.put(f"/owner/repo/resolve/{revision}/sub/tiny.gguf", data, headers=headers)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    download.close()
    with serve() as site:
        index = PackageIndex(site, "json")
        index.add("llama-cpp-python", "llama_cpp_python-0.3.36.tar.gz", sdist("llama_cpp_python", "0.3.36", []))
        for name, version in (("cmake", "3.31.0"), ("ninja", "1.13.0"), ("uv", "0.9.1"), ("alpha", "1.0")):
            index.add(name, f"{name}-{version}-py3-none-any.whl", wheel(name, version))
        made = Hub(site)
        made.env |= {"UV_DEFAULT_INDEX": index.url, "UV_CACHE_DIR": str(tmp_path / "uv"), "PATH": "/usr/bin:/bin"}
        made.env["HOME"] = str(tmp_path)
        yield made
        download.close()


def lock(hub: Hub, path: Path, previous: Lock | None = None, *, upgrade: bool = False) -> Lock:
    cache = Cache(path.parent / "cache")
    return lock_recipe(
        load_recipe(path), path, cache, previous, now=NOW, upgrade=upgrade, requires=("alpha",), env=hub.env
    )


def model_of(lock: Lock) -> Locked:
    found = lock.find("model", "tiny")
    assert found is not None
    return found


def test_lock_pins_the_newest_commit_of_a_hub_and_keeps_it_until_an_upgrade(hub: Hub, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, HUB)
    hub.publish(OLD, DATA)
    first = lock(hub, path)
    assert (model_of(first).version, model_of(first).sha256) == (OLD, sha256(DATA))
    hub.publish(NEW, DATA + b"newer")
    assert lock(hub, path, first) == first
    moved = model_of(lock(hub, path, first, upgrade=True))
    assert (moved.version, moved.sha256) == (NEW, sha256(DATA + b"newer"))
    check_covers(first, load_recipe(path), path, ("alpha",))


def test_build_brings_the_locked_commit_although_the_hub_has_a_newer_one(hub: Hub, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, HUB)
    hub.publish(OLD, DATA)
    locked = model_of(lock(hub, path))
    hub.publish(NEW, DATA + b"newer")
    assert fetch(locked, Cache(tmp_path / "other"), env=hub.env).read_bytes() == DATA


def test_hub_that_names_no_commit_cannot_be_locked(hub: Hub, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, HUB)
    hub.site.put("/owner/repo/resolve/main/sub/tiny.gguf", DATA)
    with pytest.raises(ApplianceError, match="source.wrong-commit"):
        lock(hub, path)


def test_stand_in_speaks_what_the_hubs_own_client_understands(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import hf_hub_download

    hub.publish(OLD, DATA)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    found = hf_hub_download(
        "owner/repo", "sub/tiny.gguf", endpoint=hub.env["HF_ENDPOINT"], cache_dir=tmp_path / "hf", token=False
    )
    assert Path(found).read_bytes() == DATA
    assert OLD in found


def parts_recipe(folder: Path) -> Path:
    for number, data in enumerate((DATA, b"second", b"third"), 1):
        (folder / f"part{number}").write_bytes(data)
    source = "[file:part1, file:part2, file:part3]"
    models = f"models: [{{name: tiny, source: {source}, licence: Apache-2.0, context: 64}}]"
    return write_recipe(folder, "", models=models)


def test_parts_are_pinned_one_by_one_and_as_a_whole(hub: Hub, tmp_path: Path) -> None:
    path = parts_recipe(tmp_path)
    found = lock(hub, path)
    whole, parts = model_of(found), found.parts_of("tiny")
    assert (whole.sha256, whole.file) == (sha256(DATA + b"secondthird"), "tiny.gguf")
    assert [part.sha256 for part in parts] == [sha256(DATA), sha256(b"second"), sha256(b"third")]
    assert whole.source == "file:part1 + file:part2 + file:part3"
    assert lock(hub, path, found) == found
    check_covers(found, load_recipe(path), path, ("alpha",))


def split_recipe(folder: Path, files: list[bytes]) -> Path:
    for number, data in enumerate(files, 1):
        (folder / f"m-{number}.gguf").write_bytes(data)
    source = ", ".join(f"file:m-{number}.gguf" for number in range(1, len(files) + 1))
    models = f"models: [{{name: tiny, source: [{source}], licence: Apache-2.0, context: 64}}]"
    return write_recipe(folder, "", models=models)


def test_split_model_is_pinned_part_by_part_and_its_first_part_stands_for_it(hub: Hub, tmp_path: Path) -> None:
    files = split_parts(3)
    path = split_recipe(tmp_path, files)
    found = lock(hub, path)
    whole, parts = model_of(found), found.parts_of("tiny")
    assert [part.sha256 for part in parts] == [sha256(data) for data in files]
    assert (whole.sha256, whole.file) == (parts[0].sha256, "m-1.gguf")
    listed = "".join(f"{sha256(data)}  m-{number}.gguf\n" for number, data in enumerate(files, 1))
    assert whole.made == f"merge parts=sha256:{sha256(listed.encode())}"
    write_lock(tmp_path / "again.lock.json", found)
    assert read_lock(tmp_path / "again.lock.json") == found
    assert lock(hub, path, found) == found
    check_covers(found, load_recipe(path), path, ("alpha",))


def test_lock_that_pins_a_split_model_as_joined_is_made_anew(hub: Hub, tmp_path: Path) -> None:
    path = split_recipe(tmp_path, split_parts(2))
    found = lock(hub, path)
    old = replace(model_of(found), made=None, file="tiny.gguf", sha256=sha256(b"".join(split_parts(2))))
    before = replace(found, entries=tuple(old if entry.kind == "model" else entry for entry in found.entries))
    assert lock(hub, path, before) == found


def test_split_model_without_one_of_its_parts_is_refused_at_lock(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.kind"):
        lock(hub, split_recipe(tmp_path, split_parts(3)[:2]))


def test_parts_in_another_order_are_not_what_was_locked(hub: Hub, tmp_path: Path) -> None:
    path = parts_recipe(tmp_path)
    whole = model_of(lock(hub, path))
    paths = [tmp_path / f"part{number}" for number in (1, 3, 2)]
    other = Cache(tmp_path / "other")
    with pytest.raises(DamagedError, match="source.differs-from-lock"):
        fetch_concatenated(whole, paths, other)
    assert not [one for one in other.folder("sha256").rglob("*") if one.is_file()]
    right = fetch_concatenated(whole, [tmp_path / f"part{number}" for number in (1, 2, 3)], other)
    assert sha256(right.read_bytes()) == whole.sha256


def test_joining_that_was_broken_off_leaves_nothing_half_made(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"one")
    cache = Cache(tmp_path / "cache")
    with pytest.raises(FileNotFoundError):
        concatenate("tiny", [tmp_path / "one", tmp_path / "gone"], cache)
    (tmp_path / "two").mkdir()
    with pytest.raises(IsADirectoryError):
        concatenate("tiny", [tmp_path / "one", tmp_path / "two"], cache)
    assert not [one for one in cache.root.rglob("*") if one.is_file()]


GATED = "models: [{{name: tiny, source: 'file:part1', licence: LicenseRef-terms, context: 64{}}}]"


def test_terms_that_nobody_accepted_stop_lock_and_build(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "part1").write_bytes(DATA)
    path = write_recipe(tmp_path, "", models=GATED.format(""))
    for act in (lambda: lock(hub, path), lambda: check_covers(Lock(1, (), ()), load_recipe(path), path, ())):
        with pytest.raises(UsageError) as caught:
            act()
        assert (caught.value.code, caught.value.exit_code) == ("licence.not-accepted", 2)
        assert "LicenseRef-terms" in caught.value.expected
        assert "accepted: {by:" in caught.value.hint
    path = write_recipe(tmp_path, "", models=GATED.format(', accepted: {by: Jane Doe, date: "2026-01-02"}'))
    assert model_of(lock(hub, path)).licence == "LicenseRef-terms"


@pytest.mark.parametrize("words", [", accepted: {by: Jane Doe}", ", accepted: {by: Jane Doe, date: 2026-01-02}"])
def test_acceptance_names_who_and_when(tmp_path: Path, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(write_recipe(tmp_path, "", models=GATED.format(words)))
    assert caught.value.code == "recipe.invalid"
    assert caught.value.subject.endswith("models[0].accepted.date")


def files_line(path: str) -> str:
    return f"files: [{{source: 'file:part1', path: {path}, licence: MIT}}]"


def test_further_file_is_pinned_by_its_path(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "part1").write_bytes(DATA)
    path = write_recipe(tmp_path, "file:part1", files=files_line("files/notes/site.txt"))
    found = lock(hub, path)
    entry = found.find("file", "files/notes/site.txt")
    assert entry is not None
    assert (entry.sha256, entry.licence) == (sha256(DATA), "MIT")
    assert load_recipe(path).files[0].kind == "config"
    check_covers(found, load_recipe(path), path, ("alpha",))
    other = write_recipe(tmp_path, "file:part1", files=files_line("licences/x.txt"))
    assert load_recipe(other).files[0].kind == "licence"
    with pytest.raises(UsageError, match="lock.stale"):
        check_covers(found, load_recipe(other), other, ("alpha",))


@pytest.mark.parametrize("place", ["wheels/x.whl", "files/../x", "/etc/passwd", "files", "files/CON"])
def test_file_may_take_no_place_of_something_else(tmp_path: Path, place: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(write_recipe(tmp_path, "file:part1", files=files_line(place)))
    assert caught.value.subject.endswith("files[0].path")


def test_schema_beside_the_recipes_is_the_models() -> None:
    path = recipes_path() / schema.FILE
    assert path.read_text("utf-8") == schema.format_schema(), "run: python -m appliance.builder.recipe.schema"
    assert set(json.loads(path.read_text())["properties"]) >= {"name", "targets", "models", "files", "serve"}
