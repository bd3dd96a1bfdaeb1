"""Building the runtime: what a run leaves, and what an interrupted run leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from appliance.builder.runtime.build_job import build_runtime, find_runtime
from appliance.builder.runtime.build_types import BuiltRuntime, RuntimeSpec, ToolWheels
from appliance.builder.wheels.reader import wheel_metadata
from bundles.contents.wheel_record import parse_record
from bundles.progress import Progress
from signing.digest import sha256
from signing.errors import BusyError
from tests.appliance.sim_runtime import SPEC, STEPS, build_argv, make_sdist, make_tools


@dataclass(frozen=True)
class Finished:
    sdist: Path
    tools: ToolWheels
    cache: Path
    built: BuiltRuntime
    events: list[Progress]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One build that several tests read and none changes."""
    folder = tmp_path_factory.mktemp("finished")
    sdist, tools, events = make_sdist(folder / "s.tar.gz"), make_tools(folder / "tools"), list[Progress]()
    built = build_runtime(sdist, tools, SPEC, folder / "cache", events.append)
    return Finished(sdist, tools, folder / "cache", built, events)


def _names(built: BuiltRuntime) -> list[str]:
    with zipfile.ZipFile(built.path) as archive:
        return archive.namelist()


def test_one_build_gives_one_wheel_whose_record_is_right(finished: Finished) -> None:
    built = finished.built

    assert re.fullmatch(r"9\.9\.9\+appliance\.[0-9a-f]{8}", built.version)
    assert built.path.name == f"llama_cpp_python-{built.version}-py3-none-manylinux_2_34_x86_64.whl"
    assert built.sha256 == sha256(built.path.read_bytes())
    assert built.size == built.path.stat().st_size
    assert wheel_metadata(built.path) == ("llama_cpp_python", built.version, "MIT")
    assert built.variants == ("x64", "haswell")
    assert built.toolchain["gcc"].startswith("gcc")
    assert built.toolchain["cmake"] == "1.0"
    with zipfile.ZipFile(built.path) as archive:
        infos = archive.infolist()
        record = parse_record(archive.read(infos[-1]), infos[-1].filename, built.path.name)
        assert [entry.path for entry in record] == [info.filename for info in infos[:-1]]
        assert all(sha256(archive.read(entry.path)) == entry.sha256 for entry in record)
        assert built.unpacked_size == sum(info.file_size for info in infos)


def test_wheel_holds_programs_libraries_binding_and_converters_and_nothing_else(finished: Finished) -> None:
    names = _names(finished.built)

    assert [name for name in names if "dist-info" not in name] == [
        "llama_cpp/__init__.py",
        "llama_cpp/convert/conversion/base.py",
        "llama_cpp/convert/convert_hf_to_gguf.py",
        "llama_cpp/convert/convert_lora_to_gguf.py",
        "llama_cpp/convert/gguf-py/gguf/constants.py",
        "llama_cpp/lib/libggml-cpu-haswell.so",
        "llama_cpp/lib/libggml-cpu-x64.so",
        "llama_cpp/lib/libggml.so",
        "llama_cpp/lib/libllama-common.so",
        "llama_cpp/lib/libllama.so",
        "llama_cpp/lib/libmtmd.so",
        "llama_cpp/lib/llama-bench",
        "llama_cpp/lib/llama-gguf-split",
        "llama_cpp/lib/llama-perplexity",
        "llama_cpp/lib/llama-quantize",
        "llama_cpp/lib/llama-server",
        "llama_cpp/py.typed",
        "llama_cpp/server/app.py",
    ]


def test_another_folder_time_and_time_zone_give_the_same_bytes(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("CFLAGS", "-O1 -g")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    old = os.umask(0o077)
    try:
        second = build_runtime(finished.sdist, finished.tools, SPEC, tmp_path / "a much longer name" / "c")
    finally:
        os.umask(old)

    assert second.path.read_bytes() == finished.built.path.read_bytes()


@pytest.mark.ci
def test_ccache_of_this_machine_is_used_and_changes_no_byte(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "ccache"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nenv | grep ^CCACHE_ >> {tmp_path}/seen\nexec "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("CCACHE_READONLY", "1")
    monkeypatch.setenv("CCACHE_DIR", "/somewhere/else")
    search = {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    second = build_runtime(finished.sdist, finished.tools, SPEC, tmp_path / "cache", environment=search)

    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines())
    assert seen["CCACHE_DIR"] == str(tmp_path / "cache" / "ccache")
    assert seen["CCACHE_CONFIGPATH"] == "/dev/null"
    assert "CCACHE_READONLY" not in seen
    assert second.path.read_bytes() == finished.built.path.read_bytes()


def test_finished_runtime_is_found_and_an_unfinished_one_is_not_built(finished: Finished, tmp_path: Path) -> None:
    assert find_runtime(finished.sdist, finished.tools, SPEC, finished.cache) == finished.built
    assert find_runtime(finished.sdist, finished.tools, SPEC, tmp_path / "cache") is None
    assert not (tmp_path / "cache").exists()


def test_second_call_hashes_the_wheel_and_does_nothing_else(finished: Finished) -> None:
    before = finished.built.path.stat()
    events: list[Progress] = []

    assert build_runtime(finished.sdist, finished.tools, SPEC, finished.cache, events.append) == finished.built
    assert events == []
    assert finished.built.path.stat().st_mtime_ns == before.st_mtime_ns


def test_finished_build_leaves_no_build_folder(finished: Finished) -> None:
    wheel = finished.built.path
    key = wheel.parent.name

    assert {path.name for path in finished.cache.iterdir()} == {key, f"{key}.lock", f"{key}.log"}
    assert {path.name for path in wheel.parent.iterdir()} == {wheel.name, "build.json"}


def test_wheel_damaged_in_the_cache_is_built_again(finished: Finished, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(finished.cache, cache)
    good = finished.built.path.read_bytes()
    path = cache / finished.built.path.relative_to(finished.cache)
    path.write_bytes(good[:-1] + b"\xff")

    again = build_runtime(finished.sdist, finished.tools, SPEC, cache)

    assert again == replace(finished.built, path=path)
    assert path.read_bytes() == good


@pytest.mark.parametrize("change", ["sdist", "tools", "variants"])
def test_other_inputs_are_another_runtime(change: str, finished: Finished, tmp_path: Path) -> None:
    first, sdist, tools, spec = finished.built, finished.sdist, make_tools(tmp_path / "tools"), SPEC
    if change == "sdist":
        sdist = make_sdist(tmp_path / "other.tar.gz", changed={"llama_cpp/more.py": ""})
    elif change == "tools":
        with zipfile.ZipFile(tools.ninja, "a") as archive:
            archive.writestr("ninja/comment", "")
    else:
        spec = RuntimeSpec(SPEC.version, ("x64", "sse42"))

    second = build_runtime(sdist, tools, spec, tmp_path / "cache")

    assert second.path.parent != first.path.parent
    assert (second.version == first.version) == (change != "variants")


def test_progress_counts_steps_to_the_end(finished: Finished) -> None:
    counted = [(event.done, event.total) for event in finished.events if event.task == "compiling the runtime"]
    assert counted == [(step, STEPS + 1) for step in range(1, STEPS + 2)]
    assert {event.unit for event in finished.events} == {"steps"}


def test_interrupted_build_continues_where_it_stopped(finished: Finished, tmp_path: Path) -> None:
    sdist, tools = finished.sdist, finished.tools

    def interrupt(event: Progress) -> None:
        if event.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_runtime(sdist, tools, SPEC, tmp_path / "cache", interrupt)
    assert not list((tmp_path / "cache").glob("*/*.whl"))
    events: list[Progress] = []
    built = build_runtime(sdist, tools, SPEC, tmp_path / "cache", events.append)

    assert max(event.total for event in events) in (STEPS + 1 - 5, STEPS + 1 - 4)
    assert built.sha256 == finished.built.sha256


@pytest.mark.ci
def test_builder_killed_by_sigkill_leaves_no_compiler_and_can_continue(
    finished: Finished, tools: ToolWheels, tmp_path: Path
) -> None:
    sdist = make_sdist(tmp_path / "slow.tar.gz", pace_s=0.04)
    cache = tmp_path / "cache"
    child = subprocess.Popen(build_argv(sdist, tools, cache), stdout=subprocess.PIPE, text=True)
    assert child.stdout
    while child.stdout.readline().strip() != "3":
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()

    events: list[Progress] = []
    built = build_runtime(sdist, tools, SPEC, cache, events.append)

    assert max(event.total for event in events) < STEPS
    assert str(cache) not in _running_commands()
    with zipfile.ZipFile(built.path) as one, zipfile.ZipFile(finished.built.path) as other:
        assert [one.read(name) for name in _names(built)] == [other.read(name) for name in _names(finished.built)]


def _running_commands() -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:
            continue
    return "\n".join(line for line in found if "ninja" in line)


def test_build_folder_of_another_boot_is_not_trusted(sdist: Path, tools: ToolWheels, tmp_path: Path) -> None:
    def interrupt(event: Progress) -> None:
        if event.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_runtime(sdist, tools, SPEC, tmp_path / "cache", interrupt)
    (state,) = (tmp_path / "cache").glob("*.building/state.json")
    state.write_text(json.dumps(json.loads(state.read_text()) | {"boot": "another"}, separators=(",", ":")))
    events: list[Progress] = []
    build_runtime(sdist, tools, SPEC, tmp_path / "cache", events.append)

    assert max(event.total for event in events) == STEPS + 1


@pytest.mark.ci
def test_second_builder_waits_and_takes_the_first_ones_wheel(tools: ToolWheels, tmp_path: Path) -> None:
    sdist = make_sdist(tmp_path / "slow.tar.gz", pace_s=0.05)
    started = threading.Event()
    results: list[BuiltRuntime] = []

    def first() -> None:
        results.append(build_runtime(sdist, tools, SPEC, tmp_path / "cache", lambda _event: started.set()))

    thread = threading.Thread(target=first)
    thread.start()
    started.wait(20)
    with pytest.raises(BusyError) as raised:
        build_runtime(sdist, tools, SPEC, tmp_path / "cache", timeout_s=0)
    events: list[Progress] = []
    second = build_runtime(sdist, tools, SPEC, tmp_path / "cache", events.append)
    thread.join()

    assert raised.value.exit_code == 75
    assert results == [second]
    assert {event.task for event in events} == {"waiting for another build of the same runtime"}


@pytest.mark.ci
def test_user_without_an_entry_in_the_password_database_builds_it_too(
    sdist: Path, tools: ToolWheels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(user: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {user}")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert build_runtime(sdist, tools, SPEC, tmp_path / "cache").path.exists()
