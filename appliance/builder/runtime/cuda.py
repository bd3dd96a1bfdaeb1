"""The CUDA backend of the same sources: a distribution of its own, with one library.

Owns the distribution `llama-cpp-python-cuda`. A bundle for CPUs alone stays small, because nothing of this is in the
runtime's wheel.

Rules:
- the toolkit comes from hash-verified wheels (`cuda_toolkit`), never from this machine;
- machine code for exactly the requested architectures: nothing is compiled on a host;
- the library finds NVIDIA's by a path relative to itself, where the installer of Python packages puts them;
- it finds `libggml-base` in the process, which has loaded the runtime before;
- nothing searches for the library: a program loads it by its absolute path;
- the library loads without a driver, and then reports that there is no device.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from appliance.builder.recipe.choices import CUDA_ARCHITECTURES
from appliance.builder.runtime.build_job import LOCK_TIMEOUT_S, Job, run_job
from appliance.builder.runtime.build_types import BuiltRuntime, CudaSpec, ToolWheels
from appliance.builder.runtime.compilation.cmake_build import Workplace, compiler_flags
from appliance.builder.runtime.compilation.toolchain import known_compiler, record_tools, record_wheels
from appliance.builder.runtime.cuda_toolkit import HOST_TOOLKIT_NAMES, SERIES, TOOLKIT_ROOT, unpack_toolkit
from appliance.builder.runtime.repack import WheelFile
from appliance.builder.runtime.settings import LINK_FLAGS, OPTIONS
from appliance.builder.runtime.symbols import SYSTEM_LIBRARIES, SymbolFloors, read_elf, symbol_floors
from appliance.builder.runtime.wheel import WheelIdentity, local_version
from bundles.progress import OnProgress, ignore
from signing.errors import ApplianceError, UsageError

DISTRIBUTION = "llama_cpp_python_cuda"
LIBRARY = "libggml-cuda.so"
LIBRARY_FOLDER = "llama_cpp_cuda/lib"
LAYOUT = 1
"""Raised when the same settings would give another wheel."""

DRIVER = "580"
"""The lowest driver that runs what this toolkit compiles."""

_RPATH = f"$ORIGIN/../../{TOOLKIT_ROOT}/lib"
_NVIDIA_LIBRARIES = frozenset({"libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13"})
_TARGETS = ("ggml-cuda",)
_NEEDED_BYTES = 4 << 30
_OPTIONS = {
    "CMAKE_CUDA_RUNTIME_LIBRARY": "Shared",
    "CMAKE_INSTALL_RPATH": _RPATH,
    "GGML_CPU": "OFF",
    "GGML_CPU_ALL_VARIANTS": "OFF",
    "GGML_CUDA": "ON",
    # The first would fetch the sources of a toolkit from a network, the second would look for another library.
    "GGML_CUDA_CUB_3DOT2": "OFF",
    "GGML_CUDA_NCCL": "OFF",
    # Without it, the library would not load on a machine without the driver's own library.
    "GGML_CUDA_NO_VMM": "ON",
    "LLAMA_BUILD_COMMON": "OFF",
    "LLAMA_BUILD_SERVER": "OFF",
    "LLAMA_BUILD_TOOLS": "OFF",
}
_SUMMARY = "The CUDA backend of llama.cpp for llama-cpp-python, as one library to be loaded by its absolute path"


def build_cuda(
    sdist: Path,
    tools: ToolWheels,
    toolkit: tuple[Path, ...],
    spec: CudaSpec,
    cache_dir: Path,
    on_progress: OnProgress = ignore,
    *,
    environment: Mapping[str, str] = os.environ,
    timeout_s: float = LOCK_TIMEOUT_S,
) -> BuiltRuntime:
    """Build the backend's wheel, or take it from the cache. One architecture takes an hour of one processor.

    Args:
        sdist: verified bytes of the llama-cpp-python sdist.
        tools: verified wheels of cmake and ninja.
        toolkit: verified wheels of everything in `TOOLKIT`.
        spec: what the recipe asks for.
        cache_dir: the runtime part of the cache.
        on_progress: called with steps done.
        environment: PATH to find the compiler, HOME to make sure that it is not in the result.
        timeout_s: how long to wait for another build of the same.

    Raises:
        UsageError: an unknown architecture, or none.
        HostUnfitError, DamagedError, BusyError, ApplianceError: as `job.build_runtime`.
    """
    unknown = [str(number) for number in spec.architectures if number not in CUDA_ARCHITECTURES]
    if unknown or not spec.architectures:
        raise UsageError(
            "runtime.architecture-unknown",
            "runtime.cuda",
            expected=f"a list of: {', '.join(map(str, CUDA_ARCHITECTURES))}",
            found=", ".join(unknown) or "an empty list",
        )
    compiler = known_compiler(environment.get("PATH", os.defpath))
    toolchain = {**compiler.versions, **record_tools(tools), **record_wheels(toolkit)}
    chosen = tuple(sorted(set(spec.architectures)))
    job = CudaJob(sdist, tools, spec.version, (), compiler, toolchain, on_progress, toolkit, chosen)
    return run_job(job, cache_dir, environment, timeout_s)


@dataclass(frozen=True)
class CudaJob(Job):
    """A build of the backend: the same sources and steps as the runtime, and a toolkit.

    Args:
        toolkit: verified wheels.
        architectures: sorted, each once.
    """

    toolkit: tuple[Path, ...] = ()
    architectures: tuple[int, ...] = ()

    def flags(self) -> tuple[str, ...]:
        """Every setting that shapes the wheel."""
        return (
            f"layout={LAYOUT}",
            f"cuda={self._names()}",
            f"link={' '.join(LINK_FLAGS)}",
            *(f"{name}={value}" for name, value in sorted((OPTIONS | _OPTIONS).items())),
            f"targets={','.join(_TARGETS)}",
        )

    def targets(self) -> tuple[str, ...]:
        """The one library and what it links to."""
        return _TARGETS

    def needed_bytes(self) -> int:
        """The toolkit alone takes two GiB."""
        return _NEEDED_BYTES

    def adapt(self, place: Workplace) -> dict[str, str]:
        """Unpack the toolkit; the settings of cmake that name it."""
        root = unpack_toolkit(self.toolkit, place.folder / "toolkit")
        return _OPTIONS | {
            "CMAKE_CUDA_ARCHITECTURES": self._names(),
            "CMAKE_CUDA_COMPILER": str(root / "bin" / "nvcc"),
            "CMAKE_CUDA_FLAGS": " ".join(f"-Xcompiler={flag}" for flag in compiler_flags(place)),
            "CMAKE_CUDA_HOST_COMPILER": self.compiler.cxx,
            "CUDAToolkit_ROOT": str(root),
        }

    def collect(self, place: Workplace) -> tuple[tuple[WheelFile, ...], SymbolFloors]:
        """The one library, checked."""
        path = place.binaries / LIBRARY
        elf = read_elf(path)
        foreign = set(elf.needed) - SYSTEM_LIBRARIES - _NVIDIA_LIBRARIES - {"libggml-base.so"}
        if foreign:
            expected = (
                "only the runtime, NVIDIA's libraries in the wheels beside it, and the system's C and C++ library"
            )
            raise ApplianceError(
                "runtime.library-foreign", LIBRARY, expected=expected, found=", ".join(sorted(foreign))
            )
        if elf.rpath != _RPATH or elf.runpath is not None:
            found = f"rpath {elf.rpath}, runpath {elf.runpath}"
            raise ApplianceError("runtime.search-path", LIBRARY, expected=f"DT_RPATH {_RPATH}", found=found)
        # NVIDIA's libraries give all their symbols one version, named like the library.
        own = replace(elf, versions=elf.versions - _NVIDIA_LIBRARIES)
        return (WheelFile(f"{LIBRARY_FOLDER}/{LIBRARY}", path, 0o644),), symbol_floors([(LIBRARY, own)])

    def identity(self, floors: SymbolFloors) -> WheelIdentity:
        """The name of the wheel."""
        return WheelIdentity(local_version(self.version, self.flags()), floors.manylinux, DISTRIBUTION)

    def metadata(self, place: Workplace) -> bytes:
        """The metadata of a distribution of its own, with what it requires."""
        del place
        needs = [f"llama-cpp-python=={self.version}", *(f"{name}{SERIES}" for name in HOST_TOOLKIT_NAMES)]
        fields = [f"Name: {DISTRIBUTION}", f"Summary: {_SUMMARY}", "License-Expression: MIT"]
        return "".join(f"{field}\n" for field in [*fields, *(f"Requires-Dist: {need}" for need in needs)]).encode()

    def _names(self) -> str:
        return ";".join(f"{CUDA_ARCHITECTURES[number]}-real" for number in self.architectures)
