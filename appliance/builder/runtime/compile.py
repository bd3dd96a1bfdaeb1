"""Compiling llama.cpp: the settings, cmake, ninja, progress, and what is said when it fails.

Owns every flag that shapes the binaries. It must never read flags from the builder's environment.

Rules:
- the settings are listed here and nowhere else; `settings` names them without any path, and their digest is in the
  wheel's version;
- no instruction beyond plain x86-64 outside the CPU variants, whatever the distribution's gcc defaults to;
- ccache saves time where the machine has it, and no byte of the result depends on it;
- DT_RPATH instead of DT_RUNPATH: the environment of a process cannot send a library's dependencies elsewhere;
- a failure shows the command and its last lines; all the rest is in the log.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from appliance.builder.runtime.child import run
from appliance.builder.runtime.source import LLAMA
from appliance.builder.runtime.toolchain import Compiler, Tools
from bundles.progress import OnProgress, Progress
from signing.errors import ApplianceError, HostUnfitError

LAYOUT = 2
"""Raised when the same settings would give another wheel."""

DATE = 315532800
"""1980-01-01, the first date of zip files: a runtime of the same sources is the same file in every bundle."""

COMPILE_FLAGS = ("-march=x86-64", "-mtune=generic")
LINK_FLAGS = ("-s", "-Wl,--build-id=none,--disable-new-dtags,--as-needed,-z,relro,-z,now")
OPTIONS: dict[str, str] = {
    "BUILD_SHARED_LIBS": "ON",
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
    "CMAKE_INSTALL_RPATH": "$ORIGIN",
    # One name for each library: no libx.so.0 beside libx.so, so no copies and no symlinks.
    "CMAKE_PLATFORM_NO_VERSIONED_SONAME": "ON",
    "CMAKE_SKIP_INSTALL_RULES": "ON",
    "GGML_BACKEND_DL": "ON",
    "GGML_CCACHE": "OFF",
    "GGML_CPU_ALL_VARIANTS": "ON",
    "GGML_NATIVE": "OFF",
    # libgomp is not on a bare Debian; ggml has threads of its own.
    "GGML_OPENMP": "OFF",
    # Neither of the two places that ask git may find one.
    "GIT_EXECUTABLE": "/nonexistent",
    "GIT_EXE": "",
    "LLAMA_ALL_WARNINGS": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_COMMON": "ON",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_NUMBER": "0",
    "LLAMA_BUILD_SERVER": "ON",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_TOOLS": "ON",
    # These three would fetch from a network while compiling or while serving.
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    # The engine has no use for starting programs.
    "LLAMA_SUBPROCESS": "OFF",
}
PROGRAMS = ("llama-server", "llama-quantize", "llama-bench", "llama-perplexity", "llama-gguf-split")
_TARGETS = ("ggml", "llama", "llama-common", "mtmd", *PROGRAMS)

# Under ccache a source is known by its path from the build folder: in the result it has the same name as without.
_CCACHE_MAP = "-ffile-prefix-map=../src=./src"

_STEP = re.compile(r"\[(\d+)/(\d+)\] ")
_LAST_LINES = 12
_LINE_LENGTH = 240


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where one build happens: absolute paths, all below `folder`, and the log beside it.

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
        """The folder where the libraries and programs end up."""
        return self.build / "bin"


def settings(variants: tuple[str, ...]) -> tuple[str, ...]:
    """Every setting that shapes the wheel, without a path of this machine."""
    return (
        f"layout={LAYOUT}",
        f"cpu={','.join(variants)}",
        f"compile={' '.join((*COMPILE_FLAGS, _prefix_map('<build>')))}",
        f"link={' '.join(LINK_FLAGS)}",
        *(f"{name}={value}" for name, value in sorted(OPTIONS.items())),
        f"targets={','.join(_TARGETS)}",
    )


def configure(
    tools: Tools, compiler: Compiler, place: Workplace, commit: str, more: Mapping[str, str] | None = None
) -> None:
    """Run cmake.

    Args:
        commit: of llama.cpp, as the programs shall tell it.
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
    _run_step("cmake", argv, compiler, place, _Told())


def compiler_flags(place: Workplace) -> tuple[str, ...]:
    """What gcc is told of every file, one argument each."""
    maps = [_prefix_map(str(place.folder)), *([_CCACHE_MAP] if place.ccache else [])]
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
        jobs: compilers at the same time, at least 1.
        on_progress: told `n of m` steps of what is left to do.
        targets: what is made; None makes the runtime.

    Raises:
        ApplianceError: a step failed.
    """
    argv = [str(tools.ninja), "-C", str(place.build), "-j", str(jobs), *(targets or _TARGETS)]
    _run_step("ninja", argv, compiler, place, _Told(on_progress))


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


@dataclass(slots=True)
class _Told:
    """What a child has said so far: its progress, and the lines that matter if it fails."""

    on_progress: OnProgress | None = None
    last: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    reason: str = ""
    failing: bool = False

    def hear(self, line: str) -> None:
        step = _STEP.match(line)
        if step or line.startswith("ninja: "):
            self.failing = False
        if step and self.on_progress:
            self.on_progress(Progress("compiling the runtime", int(step[1]), int(step[2]), "steps"))
        if line.startswith("FAILED: ") and not self.failed:
            self.failing = True
        if self.failing:
            self.failed.append(line)
        if line.startswith("CMake Error") and not self.reason:
            self.reason = line
        if line:
            self.last = [*self.last[1 - _LAST_LINES :], line]


def _run_step(name: str, argv: list[str], compiler: Compiler, place: Workplace, told: _Told) -> None:
    environment = clean_environment(compiler, place)
    status = run(argv, environment=environment, log=place.log, hold=place.hold, on_line=told.hear)
    if status != 0:
        raise _failure(name, status, told, place)


def _failure(name: str, status: int, told: _Told, place: Workplace) -> ApplianceError:
    # ninja prints `FAILED: [code=1] <output>`, then the command, then what the command printed.
    subject, command, lines = name, f"exit status 0, not {status}", told.last
    if told.failed:
        subject = told.failed[0].removeprefix("FAILED: ").split("] ")[-1].strip()
        command = _shorten(told.failed[1] if len(told.failed) > 1 else "", 2 * _LINE_LENGTH)
        lines = told.failed[2:] or told.last
    lines = [*([told.reason] if told.reason else []), *lines[-_LAST_LINES:]]
    text = "\n".join(_shorten(line, _LINE_LENGTH) for line in lines)
    hint = f"the whole log: {place.log}; to start over, remove {place.folder}"
    if "No space left on device" in text:
        return ApplianceError("disk.full", subject, expected="room on the disk", found=text, hint=hint)
    if "Killed signal" in text or status == -9:
        return HostUnfitError(
            "runtime.out-of-memory", subject, expected="about 1 GiB free for each processor", found=text, hint=hint
        )
    code = "runtime.compile-failed" if name == "ninja" else "runtime.configure-failed"
    return ApplianceError(code, subject, expected=f"success of {command}", found=text, hint=hint)


def _shorten(line: str, length: int) -> str:
    # The head names the program, the tail the file.
    return line if len(line) <= length else f"{line[: length // 3]} … {line[-(length - length // 3) :]}"


def _ccache_environment(folder: Path) -> dict[str, str]:
    # What this person set up for other work has no say. Paths below the folder are told to gcc as relative ones, so
    # that a build in another folder finds what this one kept.
    return {
        "CCACHE_DIR": str(folder.parent / "ccache"),
        "CCACHE_CONFIGPATH": os.devnull,
        "CCACHE_BASEDIR": str(folder),
        "CCACHE_NOHASHDIR": "1",
        "CCACHE_COMPILERCHECK": "content",
        "CCACHE_MAXSIZE": "1G",
    }


def _prefix_map(folder: str) -> str:
    return f"-ffile-prefix-map={folder}=."
