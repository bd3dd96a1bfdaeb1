"""Compilation of llama.cpp: cmake and ninja in a build folder, with an environment of their own.

Owns how both programs are called. What shapes the binaries is in `settings`. It must never pass on the builder's
environment.

Rules:
- ccache saves time where the machine has it, and no byte of the result depends on it;
- a failure shows the command and its last lines; all the rest is in the log.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance.builder.runtime.compilation.build_output import BuildOutput
from appliance.builder.runtime.compilation.child import run
from appliance.builder.runtime.compilation.source import LLAMA
from appliance.builder.runtime.compilation.toolchain import Compiler, Tools
from appliance.builder.runtime.settings import COMPILE_FLAGS, DATE, LINK_FLAGS, OPTIONS, TARGETS, prefix_map
from bundles.progress import OnProgress

# ccache names a source by its path from the build folder; this gives it the name that it has without ccache.
_CCACHE_MAP = "-ffile-prefix-map=../src=./src"


@dataclass(frozen=True, slots=True)
class Workplace:
    """The place of one build: absolute paths below `folder`, and the log beside it.

    Args:
        folder: nothing of its path may appear in the result.
        log: the output of cmake and ninja.
        hold: the lock's descriptor, kept open by every child.
        ccache: the program, or None.
    """

    folder: Path
    log: Path
    hold: int
    ccache: str | None = None

    @property
    def source(self) -> Path:
        """The unpacked sdist."""
        return self.folder / "src"

    @property
    def build(self) -> Path:
        """The folder that cmake writes to."""
        return self.folder / "build"

    @property
    def binaries(self) -> Path:
        """The folder of the linked libraries and programs."""
        return self.build / "bin"


def configure(
    tools: Tools, compiler: Compiler, place: Workplace, commit: str, more: Mapping[str, str] | None = None
) -> None:
    """Run cmake.

    Args:
        tools: unpacked.
        compiler: of this machine.
        place: with the unpacked sources.
        commit: of llama.cpp, as the programs shall report it.
        more: settings beside `OPTIONS`, or in the place of some of them.

    Raises:
        ApplianceError: it failed.
    """
    compile_flags = " ".join(map(shlex.quote, compiler_flags(place)))
    link_flags = " ".join(LINK_FLAGS)
    options = OPTIONS | {
        "CMAKE_MAKE_PROGRAM": str(tools.ninja),
        "CMAKE_C_COMPILER": compiler.cc,
        "CMAKE_CXX_COMPILER": compiler.cxx,
        "CMAKE_C_FLAGS": compile_flags,
        "CMAKE_CXX_FLAGS": compile_flags,
        "CMAKE_EXE_LINKER_FLAGS": link_flags,
        "CMAKE_MODULE_LINKER_FLAGS": link_flags,
        "CMAKE_SHARED_LINKER_FLAGS": link_flags,
        "LLAMA_BUILD_COMMIT": commit,
        **(more or {}),
    }
    if place.ccache:
        options |= {f"CMAKE_{language}_COMPILER_LAUNCHER": place.ccache for language in ("C", "CXX")}
    argv = [str(tools.cmake), "-G", "Ninja", "-S", str(place.source / LLAMA), "-B", str(place.build)]
    argv += [f"-D{name}={value}" for name, value in options.items()]
    _run_step("cmake", argv, compiler, place, BuildOutput())


def compiler_flags(place: Workplace) -> tuple[str, ...]:
    """The flags of gcc for every file, one argument each."""
    maps = [prefix_map(str(place.folder)), *([_CCACHE_MAP] if place.ccache else [])]
    return (*COMPILE_FLAGS, *maps)


def compile_targets(
    tools: Tools,
    compiler: Compiler,
    place: Workplace,
    jobs: int,
    on_progress: OnProgress,
    targets: tuple[str, ...] | None = None,
) -> None:
    """Run ninja; what an earlier run finished is not compiled again.

    Args:
        tools: unpacked.
        compiler: of this machine.
        place: configured.
        jobs: compilers at the same time, at least 1.
        on_progress: called with steps done, of those that are left to do.
        targets: what ninja builds; None builds the runtime.

    Raises:
        ApplianceError: a step failed.
    """
    argv = [str(tools.ninja), "-C", str(place.build), "-j", str(jobs), *(targets or TARGETS)]
    _run_step("ninja", argv, compiler, place, BuildOutput(on_progress))


def clean_environment(compiler: Compiler, place: Workplace) -> dict[str, str]:
    """All that cmake, ninja and gcc see of this machine's environment."""
    home = place.folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    return (_ccache_environment(place.folder) if place.ccache else {}) | {
        "PATH": ":".join(dict.fromkeys((os.path.dirname(compiler.cc), "/usr/bin", "/bin"))),
        "HOME": str(home),
        "TMPDIR": str(home),
        "LC_ALL": "C",
        "TZ": "UTC",
        "SOURCE_DATE_EPOCH": str(DATE),
    }


def _run_step(name: str, argv: list[str], compiler: Compiler, place: Workplace, output: BuildOutput) -> None:
    environment = clean_environment(compiler, place)
    status = run(argv, environment=environment, log=place.log, hold=place.hold, on_line=output.on_line)
    if status != 0:
        raise output.failure(name, status, place.log, place.folder)


def _ccache_environment(folder: Path) -> dict[str, str]:
    # The settings that this user has for other work do not count. ccache passes paths below the folder to gcc as
    # relative ones, so that a build in another folder finds what this one cached.
    return {
        "CCACHE_DIR": str(folder.parent / "ccache"),
        "CCACHE_CONFIGPATH": os.devnull,
        "CCACHE_BASEDIR": str(folder),
        "CCACHE_NOHASHDIR": "1",
        "CCACHE_COMPILERCHECK": "content",
        "CCACHE_MAXSIZE": "1G",
    }
