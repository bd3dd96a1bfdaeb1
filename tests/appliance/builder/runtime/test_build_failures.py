"""A runtime that cannot be built: which error it is, and what a person is shown."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.builder.runtime import build_job
from appliance.builder.runtime.build_job import build_runtime
from appliance.builder.runtime.build_types import ToolWheels
from signing.errors import ApplianceError, DamagedError, HostUnfitError
from tests.appliance.sim_runtime import SPEC, build_argv, make_sdist


def test_failed_compile_shows_the_command_and_its_last_lines(tools: ToolWheels, tmp_path: Path) -> None:
    broken = "int many = ;\n" + "#warning a wall of text\n" * 400 + "#error here it ends\n"
    sdist = make_sdist(tmp_path / "s.tar.gz", unit=broken)

    with pytest.raises(ApplianceError) as raised:
        build_runtime(sdist, tools, SPEC, tmp_path / "cache")

    error = raised.value
    (log,) = (tmp_path / "cache").glob("*.log")
    assert (error.code, error.exit_code, error.subject) == ("runtime.compile-failed", 1, "bin/libggml-base.so")
    assert "gcc" in error.expected
    assert "unit.c" in error.expected
    assert "error: #error here it ends" in error.found
    assert len(error.found) < 4000
    assert str(log) in error.hint
    assert "int many = ;" in log.read_text()
    assert not list((tmp_path / "cache").glob("*/*.whl"))


def test_failed_configuration_shows_cmakes_reason_and_no_empty_lines(tools: ToolWheels, tmp_path: Path) -> None:
    sdist = make_sdist(tmp_path / "s.tar.gz", changed={"vendor/llama.cpp/src/refuse": ""})

    with pytest.raises(ApplianceError) as raised:
        build_runtime(sdist, tools, SPEC, tmp_path / "cache")

    assert (raised.value.code, raised.value.subject) == ("runtime.configure-failed", "cmake")
    lines = raised.value.found.splitlines()
    assert lines[0] == "CMake Error at CMakeLists.txt:7 (message):"
    assert "  a thing is missing" in lines
    assert all(line.strip() for line in lines)


def test_path_of_the_build_folder_in_a_file_is_refused(tools: ToolWheels, tmp_path: Path) -> None:
    sdist = make_sdist(tmp_path / "s.tar.gz", unit="/* leak */" + "const char *where(void) { return __FILE__; }\n")

    with pytest.raises(ApplianceError) as raised:
        build_runtime(sdist, tools, SPEC, tmp_path / "cache")

    assert raised.value.code == "runtime.path-leaked"
    assert str(tmp_path) in raised.value.found


def test_library_that_a_bare_host_does_not_have_is_refused(tools: ToolWheels, tmp_path: Path) -> None:
    sdist = make_sdist(tmp_path / "s.tar.gz", needs="-Wl,--no-as-needed -fopenmp")

    with pytest.raises(ApplianceError) as raised:
        build_runtime(sdist, tools, SPEC, tmp_path / "cache")

    assert raised.value.code == "runtime.library-foreign"
    assert "libllama.so needs libgomp.so.1" in raised.value.found


def test_missing_compiler_is_reported_with_what_installs_it(sdist: Path, tools: ToolWheels, tmp_path: Path) -> None:
    with pytest.raises(HostUnfitError) as raised:
        build_runtime(sdist, tools, SPEC, tmp_path / "cache", environment={"PATH": str(tmp_path)})

    assert raised.value.exit_code == 6
    assert "apt-get install" in raised.value.hint
    assert not (tmp_path / "cache").exists()


def test_tool_wheel_without_the_tool_is_damaged(sdist: Path, tools: ToolWheels, tmp_path: Path) -> None:
    with pytest.raises(DamagedError) as raised:
        build_runtime(sdist, ToolWheels(tools.cmake, tools.cmake), SPEC, tmp_path / "cache")

    assert raised.value.expected == "ninja"


@pytest.mark.parametrize("needed", [build_job.NEEDED_BYTES, 0], ids=["seen before", "seen while writing"])
def test_full_disk_is_reported_with_the_path_and_the_free_bytes(
    needed: int, sdist: Path, tools: ToolWheels, tmp_path: Path
) -> None:
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode or not shutil.which("mount"):
        pytest.skip("this machine lets nobody mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=40k tmpfs "$0" && exec "$@"'
    argv = ["unshare", "-rm", "sh", "-c", script, str(disk), *build_argv(sdist, tools, disk / "cache", needed)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)

    assert done.stderr == ""
    assert done.stdout.startswith(f"disk.full: {disk}/cache")
    assert re.search(r"found \d+ bytes free", done.stdout)
