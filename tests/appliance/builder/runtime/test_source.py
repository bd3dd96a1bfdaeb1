"""The sdist: what is taken out of it, and what makes it refused."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from appliance.builder.runtime.build_job import build_runtime
from appliance.builder.runtime.build_types import RuntimeSpec, ToolWheels
from appliance.builder.runtime.compilation.source import licence_files, unpack_sdist
from appliance.builder.runtime.compilation.source_patches import (
    BACKEND_SEARCH,
    VARIANT_LIST,
    drop_working_folder,
    keep_variants,
)
from signing.errors import ApplianceError, DamagedError, UsageError
from tests.appliance.sim_runtime import COMMIT, SEARCH, SPEC, VERSION, make_sdist, make_tools


@pytest.fixture
def tools(tmp_path: Path) -> ToolWheels:
    return make_tools(tmp_path / "tools")


@pytest.fixture
def sdist(tmp_path: Path) -> Path:
    return make_sdist(tmp_path / "s.tar.gz")


def test_only_what_the_build_reads_is_unpacked_and_no_git_folder(sdist: Path, tmp_path: Path) -> None:
    folder = tmp_path / "src"
    (folder / "left over").mkdir(parents=True)

    assert unpack_sdist(sdist, folder, VERSION) == COMMIT[:7]
    assert {path.name for path in folder.iterdir()} == {"PKG-INFO", "LICENSE.md", "llama_cpp", "vendor"}
    assert {path.name for path in (folder / "vendor" / "llama.cpp").iterdir()} == {
        *("LICENSE", "convert_hf_to_gguf.py", "convert_lora_to_gguf.py"),
        *("conversion", "ggml", "gguf-py", "src"),
    }


def test_variants_that_nobody_asked_for_are_struck_out(sdist: Path, tmp_path: Path) -> None:
    unpack_sdist(sdist, tmp_path / "src", VERSION)
    before = (tmp_path / "src" / VARIANT_LIST).read_text()
    keep_variants(tmp_path / "src", ("x64", "zen4"))
    after = (tmp_path / "src" / VARIANT_LIST).read_text()

    kept = [line for line in before.splitlines() if "add_cpu" not in line or "(x64)" in line or "(zen4 " in line]
    assert after.splitlines() == kept


def test_programs_no_longer_look_for_backends_where_they_were_started(sdist: Path, tmp_path: Path) -> None:
    unpack_sdist(sdist, tmp_path / "src", VERSION)
    drop_working_folder(tmp_path / "src")
    after = (tmp_path / "src" / BACKEND_SEARCH).read_text()

    assert "push_back(cwd)" not in after
    assert "push_back(get_executable_path())" in after


def test_another_search_for_backends_than_the_known_one_ends_the_build(tools: ToolWheels, tmp_path: Path) -> None:
    sdist = make_sdist(tmp_path / "s.tar.gz", changed={BACKEND_SEARCH: SEARCH + "search_paths.push_back(cwd);\n"})

    with pytest.raises(ApplianceError) as raised:
        build_runtime(sdist, tools, SPEC, tmp_path / "cache")

    assert (raised.value.code, raised.value.subject) == ("runtime.search-differs", BACKEND_SEARCH)


def test_sdist_without_the_converters_ends_the_build(tools: ToolWheels, tmp_path: Path) -> None:
    other = {"vendor/llama.cpp/convert_lora_to_gguf.py": None}
    sdist = make_sdist(tmp_path / "s.tar.gz", changed=other)

    with pytest.raises(ApplianceError) as raised:
        build_runtime(sdist, tools, SPEC, tmp_path / "cache")

    assert (raised.value.code, raised.value.found) == ("runtime.file-missing", "convert_lora_to_gguf.py")


def test_licences_of_the_binding_and_of_llama_cpp_are_found(sdist: Path, tmp_path: Path) -> None:
    unpack_sdist(sdist, tmp_path / "src", VERSION)

    assert list(licence_files(tmp_path / "src")) == [
        "LICENSE.md",
        "vendor/llama.cpp/LICENSE",
        "vendor/llama.cpp/gguf-py/LICENSE",
    ]


def test_sdist_of_another_version_is_refused(sdist: Path, tools: ToolWheels, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        build_runtime(sdist, tools, RuntimeSpec("9.9.8", ("x64",)), tmp_path / "cache")

    assert (raised.value.expected, raised.value.found) == ("9.9.8", "9.9.9")


def test_sdist_that_is_no_archive_is_damaged(tools: ToolWheels, tmp_path: Path) -> None:
    (tmp_path / "s.tar.gz").write_bytes(b"no archive")

    with pytest.raises(DamagedError, match="runtime.sdist-unreadable"):
        build_runtime(tmp_path / "s.tar.gz", tools, SPEC, tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "kind"), [("llama_cpp/a/../../../x.py", b"0"), ("llama_cpp/link.py", tarfile.SYMTYPE)]
)
def test_sdist_entry_that_leaves_its_folder_is_refused(
    name: str, kind: bytes, tools: ToolWheels, tmp_path: Path
) -> None:
    entry = tarfile.TarInfo(f"llama_cpp_python-9.9.9/{name}")
    entry.type, entry.linkname = kind, "/etc/passwd"
    sdist = make_sdist(tmp_path / "s.tar.gz", entries=(entry,))

    with pytest.raises(DamagedError, match="runtime.sdist-unreadable"):
        build_runtime(sdist, tools, SPEC, tmp_path / "cache")

    assert not list(tmp_path.rglob("x.py"))


def test_sdist_with_a_variant_that_nobody_knows_is_refused(tools: ToolWheels, tmp_path: Path) -> None:
    listed = (
        'if (X STREQUAL "x86")\n ggml_add_cpu_backend_variant(x64)\n ggml_add_cpu_backend_variant(z80 Z)\n elseif\n'
    )
    sdist = make_sdist(tmp_path / "s.tar.gz", changed={"vendor/llama.cpp/ggml/src/CMakeLists.txt": listed})

    with pytest.raises(ApplianceError) as raised:
        build_runtime(sdist, tools, SPEC, tmp_path / "cache")

    assert raised.value.code == "runtime.variants-differ"
    assert "z80" in raised.value.found
