"""The CUDA backend is a distribution of its own, made from the same sources with a toolkit out of pinned wheels.

`python -m tests.cuda` builds the real one, which takes an hour.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from appliance.builder.runtime.build_job import build_runtime
from appliance.builder.runtime.build_types import BuiltRuntime, CudaSpec
from appliance.builder.runtime.cuda import LIBRARY, LIBRARY_FOLDER, build_cuda
from appliance.builder.runtime.symbols import read_elf
from appliance.builder.wheels.reader import wheel_metadata
from signing.errors import ApplianceError, DamagedError, UsageError
from tests.appliance.sim_runtime import SPEC, VERSION, make_sdist, make_toolkit, make_tools


class Place:
    """Sources, tools and a cache in one folder."""

    def __init__(self, folder: Path, needs: str = "") -> None:
        self.sdist = make_sdist(folder / "s.tar.gz", needs=needs)
        self.tools = make_tools(folder / "tools")
        self.cache = folder / "cache"
        self.toolkit = make_toolkit(folder / "toolkit")

    def build(self, *architectures: int, toolkit: tuple[Path, ...] | None = None) -> BuiltRuntime:
        spec = CudaSpec(VERSION, architectures)
        return build_cuda(self.sdist, self.tools, toolkit or self.toolkit, spec, self.cache)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_distribution_has_one_library_and_names_its_requirements(place: Place, tmp_path: Path) -> None:
    built = place.build(90, 80, 80)
    with zipfile.ZipFile(built.path) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        metadata = next(archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
        library = Path(archive.extract(f"{LIBRARY_FOLDER}/{LIBRARY}", tmp_path / "out"))

    assert names == [f"{LIBRARY_FOLDER}/{LIBRARY}"]
    assert wheel_metadata(built.path) == ("llama_cpp_python_cuda", built.version, "MIT")
    needs = {line.partition(": ")[2] for line in metadata.splitlines() if line.startswith("Requires-Dist")}
    assert needs == {f"llama-cpp-python=={VERSION}", "nvidia-cuda-runtime==13.0.*", "nvidia-cublas==13.0.*"}
    # From site-packages/llama_cpp_cuda/lib to site-packages/nvidia/cu13/lib, and nowhere else.
    assert read_elf(library).rpath == "$ORIGIN/../../nvidia/cu13/lib"
    assert "cuda=80-real;90-real" in built.flags
    assert built.toolchain["nvidia-cuda-nvcc"] == "13.0.1"
    assert built.variants == ()


@pytest.mark.ci
def test_runtime_beside_it_stays_what_it_was(place: Place) -> None:
    before = build_runtime(place.sdist, place.tools, SPEC, place.cache)
    built = place.build(90)
    assert built.path.parent != before.path.parent
    assert build_runtime(place.sdist, place.tools, SPEC, place.cache) == before
    with zipfile.ZipFile(before.path) as archive:
        assert not [name for name in archive.namelist() if "cuda" in name]


@pytest.mark.ci
def test_same_architectures_come_from_the_cache_and_others_or_another_toolkit_do_not(
    place: Place, tmp_path: Path
) -> None:
    first = place.build(80)
    assert place.build(80).path == first.path
    assert place.build(90).path != first.path
    other = make_toolkit(tmp_path / "other")
    with zipfile.ZipFile(other[0], "a") as archive:
        archive.writestr("nvidia/cu13/bin/more", "")
    assert place.build(80, toolkit=other).path != first.path


@pytest.mark.parametrize(("asked", "found"), [((52,), "52"), ((), "an empty list")])
def test_architecture_that_the_toolkit_cannot_make_is_refused_beside_those_that_it_can(
    place: Place, asked: tuple[int, ...], found: str
) -> None:
    with pytest.raises(UsageError) as raised:
        place.build(*asked)
    assert (raised.value.code, raised.value.found) == ("runtime.architecture-unknown", found)
    assert "75, 80, 86, 89, 90, 100, 120" in raised.value.expected
    assert not place.cache.exists()


def test_toolkit_without_its_compiler_is_damaged(place: Place, tmp_path: Path) -> None:
    with pytest.raises(DamagedError) as raised:
        place.build(90, toolkit=make_toolkit(tmp_path / "without", without="bin/nvcc"))
    assert (raised.value.code, raised.value.expected) == ("runtime.tool-missing", "nvcc")


def test_library_that_neither_the_wheels_nor_the_system_bring_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError) as raised:
        Place(tmp_path, needs="-Wl,--no-as-needed -fopenmp").build(90)
    assert (raised.value.code, raised.value.found) == ("runtime.library-foreign", "libgomp.so.1")
