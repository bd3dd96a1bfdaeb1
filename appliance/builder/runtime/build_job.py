"""One build of the runtime, from the sdist to the finished wheel in the cache.

Owns the order of the steps, for the runtime and for the CUDA backend of the same sources (`cuda`). Each step is in a
module of its own.
"""

from __future__ import annotations

import os
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.builder.cache.content_store import FULL, disk_full, home_folder, require_space
from appliance.builder.runtime.build_types import BuiltRuntime, RuntimeSpec, ToolWheels
from appliance.builder.runtime.built_runtimes import Slot, read_boot
from appliance.builder.runtime.built_variants import choose_variants, read_cpu_flags
from appliance.builder.runtime.cached_builds import cached_builds, explain_compilation
from appliance.builder.runtime.compilation.cmake_build import Workplace, compile_targets, configure
from appliance.builder.runtime.compilation.source import licence_files, unpack_sdist
from appliance.builder.runtime.compilation.source_patches import drop_working_folder, keep_variants
from appliance.builder.runtime.compilation.toolchain import (
    Compiler,
    Tools,
    check_recorded,
    find_ccache,
    known_compiler,
    pinned_tools,
    record_tools,
    unpack_tools,
    unpacked_tools,
)
from appliance.builder.runtime.repack import (
    WheelFile,
    check_leaks,
    collect_binaries,
    collect_binding,
    collect_converters,
)
from appliance.builder.runtime.settings import settings
from appliance.builder.runtime.symbols import SymbolFloors, dotted
from appliance.builder.runtime.wheel import WheelIdentity, local_version, runtime_key, write_wheel
from appliance.builder.sources.file import measure
from bundles.progress import OnProgress, Progress, ignore
from signing.digest import Digest, sha256_stream

NEEDED_BYTES = 400 << 20
LOCK_TIMEOUT_S = 3600.0
JOB_BYTES = 1 << 30
"""Memory that the largest source files need to compile."""


def build_runtime(
    sdist: Path,
    tools: ToolWheels,
    spec: RuntimeSpec,
    cache_dir: Path,
    on_progress: OnProgress = ignore,
    *,
    environment: Mapping[str, str] = os.environ,
    timeout_s: float = LOCK_TIMEOUT_S,
) -> BuiltRuntime:
    """Build the runtime's wheel, or take it from the cache, where it is hashed once.

    Args:
        sdist: verified bytes of the llama-cpp-python sdist.
        tools: verified wheels.
        spec: what the recipe asks for.
        cache_dir: the runtime part of the cache; holds `<key>/`, and while building `<key>.building/` of about 300 MB.
        on_progress: called with steps done.
        environment: PATH to find the compiler, HOME to make sure that it is not in the result.
        timeout_s: how long to wait for another build of the same runtime.

    Raises:
        UsageError: the recipe asks for something unknown.
        HostUnfitError: no compiler that is good enough.
        DamagedError: the sdist or a tool is not what it should be.
        BusyError: another build of the same runtime did not end in time.
        ApplianceError: compiling failed, or the disk is full.
    """
    job = _plan(sdist, tools, spec, environment.get("PATH", os.defpath), on_progress)
    return run_job(job, cache_dir, environment, timeout_s)


def find_runtime(
    sdist: Path,
    tools: ToolWheels,
    spec: RuntimeSpec,
    cache_dir: Path,
    *,
    environment: Mapping[str, str] = os.environ,
) -> BuiltRuntime | None:
    """The runtime that `build_runtime` would return, where the cache has it; its wheel is hashed.

    Args:
        As `build_runtime`.

    Raises:
        As `build_runtime`, before it compiles.
    """
    job = _plan(sdist, tools, spec, environment.get("PATH", os.defpath), ignore)
    return Slot(cache_dir.resolve(), job.key()).read_finished()


def runtime_flags(spec: RuntimeSpec) -> tuple[str, ...]:
    """Every setting that shapes the runtime that a recipe asks for.

    Raises:
        UsageError: the recipe asks for something unknown.
        HostUnfitError: `native`, on a machine that is no x86-64 Linux.
    """
    return settings(choose_variants(spec.cpu, read_cpu_flags() if spec.cpu == "native" else frozenset()))


def compilation_notice(
    sdist: Digest, tools: Mapping[str, tuple[str, Digest]], spec: RuntimeSpec, cache_dir: Path, search_path: str
) -> str:
    """One line about why a build compiles the runtime, and how long that takes; empty where the cache has it.

    Args:
        sdist: digest of the sources, as the lock pins it.
        tools: version and digest of the wheel of each build tool of the runtime, as the lock pins them.
        spec: what the recipe asks for.
        cache_dir: the runtime part of the cache.
        search_path: to find the compiler.

    Raises:
        UsageError, HostUnfitError: as `build_runtime`, before it compiles.
    """
    toolchain = {**known_compiler(search_path).versions, "zlib": zlib.ZLIB_RUNTIME_VERSION, **pinned_tools(tools)}
    flags = runtime_flags(spec)
    slot = Slot(cache_dir.resolve(), runtime_key(sdist, spec.version, flags, toolchain))
    if slot.read_finished():
        return ""
    if slot.is_configured(read_boot()):
        return "compiling llama.cpp: an earlier run was interrupted, and this one goes on"
    return explain_compilation(cached_builds(cache_dir, sdist, spec.version), spec.version, flags, toolchain)


def run_job(job: Job, cache_dir: Path, environment: Mapping[str, str], timeout_s: float) -> BuiltRuntime:
    """Do a job, or take its result from the cache.

    Args:
        As `build_runtime`.

    Raises:
        As `build_runtime`.
    """
    slot = Slot(cache_dir.resolve(), job.key())
    if built := slot.read_finished():
        return built
    with _reporting_full_disk(slot.cache, job.needed_bytes()), slot.locked(timeout_s, job.on_progress) as hold:
        if built := slot.read_finished():
            return built
        ccache = find_ccache(environment.get("PATH", os.defpath))
        place = Workplace(slot.building, slot.log, hold, ccache)
        # What an earlier run has compiled would be missing in the time of this one.
        began, is_whole = time.monotonic(), not slot.is_configured(read_boot())
        unpacked = job.prepare(slot, place)
        compile_targets(unpacked, job.compiler, place, _jobs(), job.on_progress, job.targets())
        homes = (environment.get("HOME", ""), str(home_folder({}) or ""))
        built = job.pack(place, private=(str(slot.cache), *homes))
        return slot.finish(built.path.parent, built, round(time.monotonic() - began) if is_whole else None)


def _plan(sdist: Path, tools: ToolWheels, spec: RuntimeSpec, search_path: str, on_progress: OnProgress) -> Job:
    variants = choose_variants(spec.cpu, read_cpu_flags() if spec.cpu == "native" else frozenset())
    compiler = known_compiler(search_path)
    toolchain = {**compiler.versions, **record_tools(tools)}
    return Job(sdist, tools, spec.version, variants, compiler, toolchain, on_progress)


@dataclass(frozen=True)
class Job:
    """A build of the runtime: everything that is decided before the first file is written.

    Args:
        sdist, tools: verified.
        version: of llama-cpp-python.
        variants: CPU variants, lowest first.
        compiler: of this machine.
        toolchain: name and version of everything that shapes the bytes.
        on_progress: called with steps done.
    """

    sdist: Path
    tools: ToolWheels
    version: str
    variants: tuple[str, ...]
    compiler: Compiler
    toolchain: dict[str, str]
    on_progress: OnProgress

    def key(self) -> Digest:
        """The digest of everything that decides the wheel's bytes."""
        return runtime_key(measure(self.sdist)[0], self.version, self.flags(), self.toolchain)

    def flags(self) -> tuple[str, ...]:
        """Every setting that shapes the wheel, without a path of this machine."""
        return settings(self.variants)

    def targets(self) -> tuple[str, ...] | None:
        """The targets of ninja; None is the whole runtime."""
        return None

    def needed_bytes(self) -> int:
        """Room on the disk for the build, in bytes."""
        return NEEDED_BYTES

    def prepare(self, slot: Slot, place: Workplace) -> Tools:
        """Unpack and configure, unless an earlier run of this boot did."""
        tools_folder, boot = place.folder / "tools", read_boot()
        if slot.is_configured(boot):
            return unpacked_tools(tools_folder)
        shutil.rmtree(place.folder, ignore_errors=True)
        place.folder.mkdir()
        require_space(place.folder, self.needed_bytes())
        place.log.write_bytes(b"")
        self.on_progress(Progress("unpacking the runtime's sources", 0, 0, "steps"))
        check_recorded(self.tools)
        commit = unpack_sdist(self.sdist, place.source, self.version)
        tools = unpack_tools(self.tools, tools_folder)
        more = self.adapt(place)
        self.on_progress(Progress("configuring the runtime", 0, 0, "steps"))
        configure(tools, self.compiler, place, commit, more)
        slot.mark_configured(boot)
        return tools

    def adapt(self, place: Workplace) -> dict[str, str]:
        """Change the unpacked sources; the settings of cmake that differ."""
        keep_variants(place.source, self.variants)
        drop_working_folder(place.source)
        return {}

    def collect(self, place: Workplace) -> tuple[tuple[WheelFile, ...], SymbolFloors]:
        """The checked files of the wheel, and the symbol versions that they need of a system."""
        binaries, floors = collect_binaries(place.binaries, self.variants)
        return (*collect_binding(place.source), *collect_converters(place.source), *binaries), floors

    def identity(self, floors: SymbolFloors) -> WheelIdentity:
        """The name of the wheel."""
        return WheelIdentity(local_version(self.version, self.flags()), floors.manylinux)

    def metadata(self, place: Workplace) -> bytes:
        """The metadata of the wheel, without its version and licences."""
        return (place.source / "PKG-INFO").read_bytes()

    def pack(self, place: Workplace, private: tuple[str, ...]) -> BuiltRuntime:
        """Check the binaries and write the wheel into a folder of its own."""
        self.on_progress(Progress("packing the runtime", 0, 0, "steps"))
        parts, floors = self.collect(place)
        check_leaks(parts, private)
        result = place.folder / "result"
        shutil.rmtree(result, ignore_errors=True)
        result.mkdir()
        identity = self.identity(floors)
        licences = licence_files(place.source)
        path, unpacked_size = write_wheel(result, identity, parts, self.metadata(place), licences)
        with path.open("rb") as stream:
            digest, size = sha256_stream(stream)
        return BuiltRuntime(
            path=path,
            sha256=digest,
            size=size,
            unpacked_size=unpacked_size,
            version=identity.version,
            variants=self.variants,
            glibc=dotted(floors.glibc),
            glibcxx=dotted(floors.glibcxx),
            cxxabi=dotted(floors.cxxabi),
            toolchain=self.toolchain,
            flags=self.flags(),
        )


def _jobs() -> int:
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)), memory_bytes // JOB_BYTES))


@contextmanager
def _reporting_full_disk(folder: Path, needed_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise disk_full(Path(error.filename) if error.filename else folder, needed_bytes) from None
