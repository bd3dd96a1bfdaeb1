"""The settings that shape the runtime's binaries.

Owns every flag of cmake, gcc and the linker, and the list of what is built. It must never read a flag from the
builder's environment.

Rules:
- the settings are listed here and nowhere else; `settings` names them without a path of this machine, and their digest
  is in the wheel's version;
- no instruction beyond plain x86-64 outside the CPU variants, whatever the distribution's gcc defaults to;
- DT_RPATH in place of DT_RUNPATH: the environment of a process cannot redirect where a library finds its dependencies.
"""

from __future__ import annotations

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
TARGETS = ("ggml", "llama", "llama-common", "mtmd", *PROGRAMS)


def settings(variants: tuple[str, ...]) -> tuple[str, ...]:
    """Every setting that shapes the wheel, without a path of this machine."""
    return (
        f"layout={LAYOUT}",
        f"cpu={','.join(variants)}",
        f"compile={' '.join((*COMPILE_FLAGS, prefix_map('<build>')))}",
        f"link={' '.join(LINK_FLAGS)}",
        *(f"{name}={value}" for name, value in sorted(OPTIONS.items())),
        f"targets={','.join(TARGETS)}",
    )


def prefix_map(folder: str) -> str:
    """The flag that keeps the name of the build folder out of the binaries."""
    return f"-ffile-prefix-map={folder}=."
