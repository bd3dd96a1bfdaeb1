"""The compiler: this machine's real one, and scripts that pretend to be unfit ones."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from appliance.builder.runtime.build_types import ToolWheels
from appliance.builder.runtime.compilation.toolchain import (
    check_recorded,
    find_compiler,
    pinned_tools,
    record_tools,
    unpack_tools,
)
from signing.digest import sha256
from signing.errors import DamagedError, HostUnfitError
from tests.appliance.sim_runtime import make_tools

ANSWERS = {"-dumpfullversion": "12.2.0", "-dumpmachine": "x86_64-linux-gnu"}


def _pretend(folder: Path, names: tuple[str, ...], answers: dict[str, str]) -> None:
    cases = "".join(f'  {question}) echo "{answer}";;\n' for question, answer in answers.items())
    for name in names:
        (folder / name).write_text(f'#!/bin/sh\ncase "$1" in\n{cases}  *) exec /usr/bin/gcc "$@";;\nesac\n')
        (folder / name).chmod(0o755)


def test_compiler_of_this_machine_is_found_and_recorded() -> None:
    compiler = find_compiler(os.environ["PATH"])
    first_line = subprocess.run([compiler.cc, "--version"], capture_output=True, text=True).stdout.splitlines()[0]

    assert compiler.versions["gcc"] == first_line
    assert set(compiler.versions) == {"gcc", "binutils", "glibc_headers", "libstdcxx_headers", "target"}
    assert all(compiler.versions.values())


def test_missing_compiler_is_reported_with_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(HostUnfitError) as raised:
        find_compiler(str(tmp_path))

    error = raised.value
    assert (error.code, error.exit_code, error.found) == ("runtime.compiler-missing", 6, "none on PATH")
    assert error.hint == "sudo apt-get install -y gcc g++ binutils"


def test_compiler_that_is_too_old_is_reported_with_its_version(tmp_path: Path) -> None:
    _pretend(tmp_path, ("gcc", "g++"), ANSWERS | {"-dumpfullversion": "11.4.0"})

    with pytest.raises(HostUnfitError) as raised:
        find_compiler(str(tmp_path))

    assert raised.value.expected == "gcc and g++ 12 or newer"
    assert raised.value.found == f"{tmp_path}/gcc 11.4.0"


def test_newer_compiler_beside_an_old_default_is_taken(tmp_path: Path) -> None:
    _pretend(tmp_path, ("gcc", "g++"), ANSWERS | {"-dumpfullversion": "11.4.0"})
    _pretend(tmp_path, ("gcc-12", "g++-12"), ANSWERS)

    assert find_compiler(str(tmp_path)).cc == str(tmp_path / "gcc-12")


def test_gcc_without_its_gxx_is_not_a_compiler(tmp_path: Path) -> None:
    _pretend(tmp_path, ("gcc",), ANSWERS)

    with pytest.raises(HostUnfitError, match="runtime.compiler-missing"):
        find_compiler(str(tmp_path))


def test_gcc_and_gxx_of_different_versions_are_not_a_compiler(tmp_path: Path) -> None:
    _pretend(tmp_path, ("gcc",), ANSWERS)
    _pretend(tmp_path, ("g++",), ANSWERS | {"-dumpfullversion": "13.1.0"})

    with pytest.raises(HostUnfitError, match="runtime.compiler-missing"):
        find_compiler(str(tmp_path))


def test_compiler_for_another_machine_is_refused(tmp_path: Path) -> None:
    _pretend(tmp_path, ("gcc", "g++"), ANSWERS | {"-dumpmachine": "aarch64-linux-gnu"})

    with pytest.raises(HostUnfitError) as raised:
        find_compiler(str(tmp_path))

    assert (raised.value.code, raised.value.found) == ("runtime.machine-unfit", "aarch64-linux-gnu")


def test_compiler_without_headers_is_refused(tmp_path: Path) -> None:
    _pretend(tmp_path, ("gcc", "g++"), ANSWERS | {"-x": ""})

    with pytest.raises(HostUnfitError) as raised:
        find_compiler(str(tmp_path))

    assert raised.value.expected == "headers of the C and C++ library"


def test_tools_are_recorded_by_version_and_digest_and_can_be_started(tmp_path: Path) -> None:
    wheels = make_tools(tmp_path)
    record = record_tools(wheels)
    tools = unpack_tools(wheels, tmp_path / "unpacked")

    assert (record["cmake"], record["ninja"]) == ("1.0", "1.0")
    assert record["ninja_sha256"] == sha256(wheels.ninja.read_bytes())
    assert record["zlib"]
    assert os.access(tools.cmake, os.X_OK)
    assert os.access(tools.ninja, os.X_OK)


def test_tools_that_the_lock_states_are_recorded_without_reading_their_wheels(tmp_path: Path) -> None:
    wheels = make_tools(tmp_path)
    digests = {name: sha256(getattr(wheels, name).read_bytes()) for name in ("cmake", "ninja")}
    stated = pinned_tools({name: ("1.0", digest) for name, digest in digests.items()})

    gone = ToolWheels(tmp_path / "no cmake", tmp_path / "no ninja", stated)
    assert record_tools(gone) == record_tools(wheels)
    check_recorded(ToolWheels(wheels.cmake, wheels.ninja, stated))


def test_tool_of_another_version_than_the_lock_states_is_damaged(tmp_path: Path) -> None:
    wheels = make_tools(tmp_path)
    digests = {name: sha256(getattr(wheels, name).read_bytes()) for name in ("cmake", "ninja")}
    stated = pinned_tools({"cmake": ("9.9", digests["cmake"]), "ninja": ("1.0", digests["ninja"])})

    with pytest.raises(DamagedError) as raised:
        check_recorded(ToolWheels(wheels.cmake, wheels.ninja, stated))

    assert (raised.value.code, raised.value.found) == ("runtime.tool-differs", "cmake 1.0")
    assert raised.value.expected == "cmake 9.9, as the lock states"
