"""A build says why it compiles and how long the last time took; a lock prefers the tools of what is in the cache."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.builder.runtime.build_job import build_runtime, compilation_notice, runtime_flags
from appliance.builder.runtime.build_types import BuiltRuntime, RuntimeSpec, ToolWheels
from appliance.builder.runtime.built_runtimes import Slot, read_boot
from appliance.builder.runtime.cached_builds import (
    USUAL,
    CachedBuild,
    cached_builds,
    explain_compilation,
    tools_built_with,
)
from signing.digest import Digest, sha256
from tests.appliance.sim_runtime import SPEC, VERSION, make_sdist, make_tools

PATH = os.environ.get("PATH", os.defpath)


@dataclass(frozen=True)
class Once:
    """A runtime that was built once, and what it was built from."""

    sdist: Digest
    tools: ToolWheels
    cache: Path
    built: BuiltRuntime

    def notice(self, spec: RuntimeSpec = SPEC, sdist: Digest | None = None, **tools: tuple[str, Digest]) -> str:
        pinned = {name: ("1.0", sha256(getattr(self.tools, name).read_bytes())) for name in ("cmake", "ninja")}
        return compilation_notice(sdist or self.sdist, pinned | tools, spec, self.cache, PATH)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    folder = tmp_path_factory.mktemp("once")
    sdist, tools = make_sdist(folder / "s.tar.gz"), make_tools(folder / "tools")
    built = build_runtime(sdist, tools, SPEC, folder / "cache")
    return Once(sha256(sdist.read_bytes()), tools, folder / "cache", built)


def test_runtime_in_the_cache_needs_no_word(once: Once) -> None:
    assert once.notice() == ""


def test_empty_cache_is_named_with_the_usual_time(once: Once, tmp_path: Path) -> None:
    empty = Once(once.sdist, once.tools, tmp_path, once.built)
    assert empty.notice() == f"compiling llama.cpp: the cache has no runtime of llama-cpp-python {VERSION}; {USUAL}"
    assert once.notice(sdist=sha256(b"other sources")) == empty.notice()


def test_newer_tool_is_the_reason_and_the_last_time_is_named(once: Once) -> None:
    notice = once.notice(cmake=("1.1", sha256(b"1.1")))
    assert notice.startswith("compiling llama.cpp again: cmake is 1.1, and was 1.0; the last time took 0 min ")
    again = once.notice(ninja=("1.0", sha256(b"built again")))
    assert "ninja 1.0 comes in another wheel" in again


def test_other_settings_are_the_reason(once: Once) -> None:
    assert "again: other settings: cpu; " in once.notice(RuntimeSpec(VERSION, ("x64",)))


def test_damaged_wheel_and_interrupted_build_are_reasons(tmp_path: Path) -> None:
    sdist, tools = make_sdist(tmp_path / "s.tar.gz"), make_tools(tmp_path / "tools")
    built = build_runtime(sdist, tools, SPEC, tmp_path / "cache")
    once = Once(sha256(sdist.read_bytes()), tools, tmp_path / "cache", built)
    built.path.write_bytes(b"changed")
    assert "again: the one in the cache was changed or removed; " in once.notice()
    key = json.loads((built.path.parent / "build.json").read_text())["key"]
    slot = Slot(once.cache.resolve(), key)
    slot.building.mkdir()
    slot.mark_configured(read_boot())
    assert once.notice() == "compiling llama.cpp: an earlier run was interrupted, and this one goes on"


def test_tools_are_those_of_the_recipes_own_settings_else_of_the_newest() -> None:
    def build(cmake: str, flags: tuple[str, ...], at: int) -> CachedBuild:
        return CachedBuild({"cmake": cmake, "cmake_sha256": sha256(cmake.encode()), "gcc": "gcc 12"}, flags, None, at)

    builds = (build("4.4.5", ("cpu=native",), 2), build("4.4.4", ("cpu=all",), 1))
    assert {name: one.version for name, one in tools_built_with(builds, ("cpu=all",)).items()} == {"cmake": "4.4.4"}
    assert tools_built_with(builds, None)["cmake"].version == "4.4.5"
    assert tools_built_with((), None) == {}
    words = explain_compilation(builds, "1.0", ("cpu=all",), {"cmake": "4.4.4", "gcc": "gcc 14"})
    assert words.startswith("compiling llama.cpp again: gcc is gcc 14, and was gcc 12; ")
    assert words.endswith(USUAL)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"flags":[],"key":"x","toolchain":7}', b"[" * 9999])
def test_file_that_is_no_record_counts_for_nothing(once: Once, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "0123").mkdir()
    (tmp_path / "0123" / "build.json").write_bytes(text)
    assert cached_builds(tmp_path, once.sdist, VERSION) == ()
    assert runtime_flags(SPEC) == once.built.flags
