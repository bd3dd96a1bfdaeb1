"""OS packages are resolved for a bare target, pinned without an address, and brought by digest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from appliance.builder.cache.content_store import Cache
from appliance.builder.debian import apt
from appliance.builder.debian.apt import Mirror, Package, machine_mirror
from appliance.builder.debian.packages import fetch_packages, lock_packages
from appliance.builder.lock.lockfile import Lock, Locked, LockedSystem, format_lock, read_lock, sort_key, write_lock
from appliance.builder.recipe.choices import BARE_HOST_PACKAGES
from appliance.builder.recipe.reader import load_recipe
from appliance.builder.recipe.recipe import RecipeTarget
from appliance.builder.resolve.coverage import check_covers
from signing.digest import sha256
from signing.errors import ApplianceError, DamagedError, HostUnfitError, UsageError
from tests.appliance.pool import Pool, require_tools
from tests.appliance.web import write_recipe

TARGET = RecipeTarget(os="debian-12", arch="x86_64", python=("3.11",), packages=("tool",))


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    require_tools()
    made = Pool(tmp_path / "mirror")
    made.folder.mkdir()
    made.add("libc")
    made.add("libtool", "2:1.0~rc1+b2", depends="libc")
    made.add("tool", depends="libtool (>= 2:1.0~rc1)")
    made.add("stranger")
    made.publish()
    yield made
    made.close()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def nobody_is_asked(system: str) -> Mirror:
    raise AssertionError(system)


def lock_of(entries: list[Locked]) -> Lock:
    system = LockedSystem("debian-12", "x86_64", TARGET.wanted_packages)
    return Lock(1, (), tuple(sorted(entries, key=sort_key)), (system,))


def test_closure_holds_everything_down_to_the_c_library_and_is_in_the_cache(pool: Pool, cache: Cache) -> None:
    entries = lock_packages(TARGET, cache, find_mirror=lambda _: pool.mirror())
    assert [(entry.name, entry.version, entry.file) for entry in entries] == [
        ("libc", "1.0", "libc_1.0_amd64.deb"),
        ("libtool", "2:1.0~rc1+b2", "libtool_1.0-rc1+b2_amd64.deb"),
        ("tool", "1.0", "tool_1.0_amd64.deb"),
    ]
    for entry in entries:
        assert sha256(cache.path(entry.sha256).read_bytes()) == entry.sha256
    found = fetch_packages(lock_of(entries), cache, Path("toy.yaml"), find_mirror=nobody_is_asked)
    assert found == {entry: cache.path(entry.sha256) for entry in entries}


def test_lock_with_packages_is_read_back_and_names_no_mirror(pool: Pool, cache: Cache, tmp_path: Path) -> None:
    lock = lock_of(lock_packages(TARGET, cache, find_mirror=lambda _: pool.mirror()))
    path = tmp_path / "toy.lock.json"
    write_lock(path, lock)
    assert read_lock(path) == lock
    assert str(pool.folder).encode() not in format_lock(lock)
    assert b"file:" not in format_lock(lock)
    assert b"://" not in format_lock(lock)


def test_same_package_for_two_systems_stands_once_for_each() -> None:
    entries = [
        Locked("os-package", "tool", "1.0", "tool_1.0_amd64.deb", 4, sha256(system.encode()), "", system=system)
        for system in ("debian-12", "debian-13")
    ]
    lock = lock_of(entries)
    assert [entry.system for entry in lock.packages_for("debian-13")] == ["debian-13"]


def test_cold_cache_is_filled_from_the_mirror_by_digest(pool: Pool, cache: Cache, tmp_path: Path) -> None:
    lock = lock_of(lock_packages(TARGET, cache, find_mirror=lambda _: pool.mirror()))
    other = Cache(tmp_path / "other")
    found = fetch_packages(lock, other, Path("toy.yaml"), find_mirror=lambda _: pool.mirror())
    assert {sha256(path.read_bytes()) for path in found.values()} == {entry.sha256 for entry in lock.entries}
    assert not list((other.root / "apt").rglob("*.deb"))


def test_package_that_the_release_no_longer_has_makes_the_lock_stale(pool: Pool, cache: Cache, tmp_path: Path) -> None:
    lock = lock_of(lock_packages(TARGET, cache, find_mirror=lambda _: pool.mirror()))
    pool.add("libtool", "2:1.1", depends="libc")
    pool.publish()
    with pytest.raises(UsageError) as caught:
        fetch_packages(lock, Cache(tmp_path / "other"), Path("toy.yaml"), find_mirror=lambda _: pool.mirror())
    assert caught.value.code == "lock.stale"
    assert "libtool" in caught.value.subject
    assert caught.value.hint == "appliance lock --upgrade toy.yaml"


def test_package_with_other_bytes_than_the_index_is_refused(pool: Pool, cache: Cache) -> None:
    made = next((pool.folder / "pool").glob("tool_*"))
    made.write_bytes(made.read_bytes()[:-1] + b"!")
    with pytest.raises(ApplianceError) as caught:
        lock_packages(TARGET, cache, find_mirror=lambda _: pool.mirror())
    assert caught.value.code == "packages.refused"
    assert not [path for path in cache.folder("sha256").rglob("*") if path.is_file()]


def test_package_republished_under_its_version_with_other_bytes_is_damaged(
    pool: Pool, cache: Cache, tmp_path: Path
) -> None:
    lock = lock_of(lock_packages(TARGET, cache, find_mirror=lambda _: pool.mirror()))
    pool.add("tool", depends="libtool", files={"usr/share/tool": "another"})
    pool.publish()
    with pytest.raises(DamagedError, match="source.differs-from-lock"):
        fetch_packages(lock, Cache(tmp_path / "other"), Path("toy.yaml"), find_mirror=lambda _: pool.mirror())


def test_index_that_another_key_has_signed_is_refused(pool: Pool, cache: Cache) -> None:
    with pytest.raises(ApplianceError) as caught:
        lock_packages(TARGET, cache, find_mirror=lambda _: pool.mirror("stranger"))
    assert caught.value.code == "packages.unreachable"
    assert "signed by the release's keys" in caught.value.expected
    assert "NO_PUBKEY" in caught.value.found or "not signed" in caught.value.found or "verif" in caught.value.found


def test_mirror_that_vanished_is_an_error_although_an_older_index_lies_here(pool: Pool, cache: Cache) -> None:
    mirror = pool.mirror()
    lock_packages(TARGET, cache, find_mirror=lambda _: mirror)
    shutil.rmtree(pool.folder / "dists")
    other = TARGET.model_copy(update={"packages": ("stranger",)})
    with pytest.raises(ApplianceError, match="packages.unreachable"):
        lock_packages(other, cache, find_mirror=lambda _: mirror)


def test_mirror_that_does_not_answer_in_time_is_an_error(
    pool: Pool, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "bin" / "apt-get"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("appliance.builder.debian.apt.TIMEOUT_S", 0.2)
    with pytest.raises(ApplianceError) as caught:
        lock_packages(TARGET, cache, find_mirror=lambda _: pool.mirror())
    assert caught.value.code == "packages.unreachable"


def test_name_that_the_release_does_not_have_is_the_recipes_mistake(pool: Pool, cache: Cache) -> None:
    other = TARGET.model_copy(update={"packages": ("tool", "no-such-tool")})
    with pytest.raises(UsageError) as caught:
        lock_packages(other, cache, find_mirror=lambda _: pool.mirror())
    assert (caught.value.code, caught.value.subject) == ("packages.absent", "no-such-tool")


def test_package_whose_dependency_is_missing_is_refused_by_name(pool: Pool, cache: Cache) -> None:
    pool.add("tool", "1.1", depends="libabsent")
    pool.publish()
    with pytest.raises(ApplianceError) as caught:
        lock_packages(TARGET, cache, find_mirror=lambda _: pool.mirror())
    assert caught.value.code == "packages.refused"
    assert "libabsent" in caught.value.found


def test_packages_of_this_machine_and_its_apt_are_left_alone(pool: Pool, cache: Cache) -> None:
    def state() -> list[tuple[str, int]]:
        paths = [path for top in ("/var/lib/apt", "/etc/apt") for path in Path(top).rglob("*")]
        return sorted((str(path), path.lstat().st_mtime_ns) for path in paths)

    before = state()
    lock_packages(TARGET, cache, find_mirror=lambda _: pool.mirror())
    assert state() == before


def test_lock_is_stale_when_the_recipe_asks_for_other_packages(tmp_path: Path) -> None:
    targets = 'targets: [{os: debian-12, arch: x86_64, python: ["3.11"], packages: [tool]}]'
    path = write_recipe(tmp_path, "file:tiny.gguf", targets=targets)
    with pytest.raises(UsageError) as caught:
        check_covers(Lock(1, (), ()), load_recipe(path), path, ())
    subjects = {error.subject.partition("lock.json ")[2]: error for error in (caught.value, *caught.value.others)}
    stale = subjects["packages of debian-12"]
    assert (stale.code, stale.expected, stale.found) == ("lock.stale", "tool", "none")


def test_bare_host_is_what_this_program_needs() -> None:
    target = RecipeTarget(os="debian-13", arch="x86_64", python=("3.13",), packages="bare-host")
    assert target.wanted_packages == BARE_HOST_PACKAGES
    assert RecipeTarget(os="debian-13", arch="x86_64", python=("3.13",)).wanted_packages == ()


@pytest.mark.parametrize("words", ["os: ubuntu-24.04, packages: [tool]", "os: debian-12, packages: [Tool]"])
def test_packages_that_cannot_be_had_are_the_recipes_mistake(tmp_path: Path, words: str) -> None:
    targets = f'targets: [{{{words}, arch: x86_64, python: ["3.11"]}}]'
    path = write_recipe(tmp_path, "file:tiny.gguf", targets=targets)
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    assert caught.value.subject.startswith(f"{path}:3:")
    assert caught.value.subject.endswith("targets[0].packages")


def test_file_name_follows_the_grammar_whatever_the_version_is() -> None:
    package = Package("libc++", "1:2.0~rc1+b2-3", "amd64", 1, sha256(b""))
    assert package.file == "libc++_2.0-rc1+b2-3_amd64.deb"


def test_machine_without_apt_is_unfit_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "shutil", SimpleNamespace(which=lambda _: None))
    with pytest.raises(HostUnfitError) as caught:
        machine_mirror("debian-12")
    assert caught.value.exit_code == 6
    assert "packages" in caught.value.hint


@pytest.mark.ci
@pytest.mark.network
@pytest.mark.parametrize(("system", "python"), [("debian-12", "3.11"), ("debian-13", "3.13")])
def test_bare_host_closure_of_a_real_release_is_whole(system: str, python: str, cache: Cache) -> None:
    require_tools()
    target = RecipeTarget(os=system, arch="x86_64", python=(python,), packages="bare-host")
    entries = lock_packages(target, cache)
    names = {entry.name for entry in entries}
    assert names > {*BARE_HOST_PACKAGES, "libc6", f"python{python}", "libssl3" if python == "3.11" else "libssl3t64"}
    assert all(entry.system == system for entry in entries)
    assert sum(entry.size for entry in entries) < 40 << 20
