"""What an ELF file needs of a system, compared with what binutils show of files of the real compiler."""

from __future__ import annotations

import re
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.builder.runtime.symbols import Elf, SymbolFloors, check_needed, read_elf, symbol_floors
from signing.errors import ApplianceError, DamagedError

LIBRARY = """
#include <condition_variable>
#include <mutex>
#include <string>
std::mutex m; std::condition_variable c;
std::string greet(const std::string &n) { std::unique_lock<std::mutex> l(m); c.wait(l); return "hello " + n; }
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("elf") / "libgreet.so"
    flags = ["-shared", "-fPIC", "-s", "-Wl,-soname,libgreet.so,-rpath,$ORIGIN,--disable-new-dtags"]
    subprocess.run(["g++", "-x", "c++", "-", *flags, "-o", path], input=LIBRARY, text=True, check=True)
    return path


def test_reader_sees_what_readelf_sees(library: Path) -> None:
    elf = read_elf(library)
    shown = subprocess.run(["readelf", "-dVW", library], capture_output=True, text=True, check=True).stdout

    assert elf.versions == set(re.findall(r"Name: (\S+)  Flags", shown))
    assert elf.needed == tuple(re.findall(r"NEEDED.*\[(.*)\]", shown))
    assert (elf.soname, elf.rpath, elf.runpath) == ("libgreet.so", "$ORIGIN", None)
    assert any(version.startswith("GLIBCXX_") for version in elf.versions)


def test_program_of_this_machine_can_be_read() -> None:
    elf = read_elf(Path("/bin/sh"))

    assert "libc.so.6" in elf.needed
    assert symbol_floors([("sh", elf)]).glibc >= (2, 3)


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF\x02\x01", b"\x7fELF\x01\x01" + bytes(99)])
def test_other_files_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data)

    with pytest.raises(DamagedError, match="elf.unreadable"):
        read_elf(tmp_path / "x")


@given(at=st.integers(0, 400), value=st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_a_changed_header_is_read_or_refused_and_nothing_else(library: Path, at: int, value: int) -> None:
    data = bytearray(library.read_bytes())
    data[at] = value
    changed = library.parent / "changed"
    changed.write_bytes(data)
    with suppress(DamagedError):
        read_elf(changed)


def _elf(*versions: str, needed: tuple[str, ...] = ()) -> Elf:
    return Elf(None, needed, "$ORIGIN", None, frozenset(versions))


def test_floor_is_the_highest_version_of_each_family_by_number() -> None:
    found = symbol_floors(
        [("a", _elf("GLIBC_2.4", "GLIBC_2.17", "GLIBCXX_3.4.9")), ("b", _elf("GLIBC_2.2.5", "GLIBCXX_3.4"))]
    )

    assert found == SymbolFloors(glibc=(2, 17), glibcxx=(3, 4, 9), cxxabi=(), gcc=())


@pytest.mark.parametrize(
    ("versions", "tag"),
    [
        (["GLIBC_2.2.5"], "manylinux_2_17_x86_64"),
        (["GLIBC_2.34"], "manylinux_2_34_x86_64"),
        (["GLIBC_2.34", "GLIBCXX_3.4.29", "CXXABI_1.3.13"], "manylinux_2_34_x86_64"),
        (["GLIBC_2.34", "GLIBCXX_3.4.30"], "manylinux_2_35_x86_64"),
        (["GLIBC_2.38", "GLIBCXX_3.4.30"], "manylinux_2_38_x86_64"),
        (["GLIBC_2.34", "GCC_14.0.0"], "manylinux_2_39_x86_64"),
        (["GLIBC_2.34", "CXXABI_1.3.15"], "manylinux_2_39_x86_64"),
        (["GLIBC_ABI_DT_RELR"], "manylinux_2_36_x86_64"),
    ],
)
def test_tag_is_the_oldest_platform_that_has_all_of_it(versions: list[str], tag: str) -> None:
    assert symbol_floors([("a", _elf(*versions))]).manylinux == tag


@pytest.mark.parametrize("version", ["GLIBC_PRIVATE", "GOMP_4.0", "CXXABI_FLOAT128", "GLIBC_2.x"])
def test_symbol_version_without_a_known_floor_is_refused(version: str) -> None:
    with pytest.raises(ApplianceError) as raised:
        symbol_floors([("liba.so", _elf(version))])

    assert (raised.value.code, raised.value.subject, raised.value.found) == ("runtime.abi-unknown", "liba.so", version)


def test_library_newer_than_every_policy_is_refused() -> None:
    with pytest.raises(ApplianceError, match="runtime.abi-unknown"):
        _ = symbol_floors([("a", _elf("GLIBCXX_3.4.99"))]).manylinux


def test_foreign_libraries_are_all_named() -> None:
    files = {
        "liba.so": _elf(needed=("libb.so", "libc.so.6", "libssl.so.3")),
        "libb.so": _elf(needed=("libgomp.so.1", "libstdc++.so.6")),
    }
    with pytest.raises(ApplianceError) as raised:
        check_needed(files)

    assert raised.value.found == "liba.so needs libssl.so.3; libb.so needs libgomp.so.1"
    check_needed({"liba.so": _elf(needed=("libb.so",)), "libb.so": _elf(needed=("libm.so.6",))})
