"""The input and the result of a runtime build.

Owns the types only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from signing.digest import Digest


@dataclass(frozen=True, slots=True)
class ToolWheels:
    """The build tools, as the wheels that the lock pins.

    Args:
        cmake: verified wheel of cmake.
        ninja: verified wheel of ninja.
        recorded: name, version and digest of both, as the lock pins them; empty: they are read from the wheels.
            Before anything is compiled, they are compared with the wheels.
    """

    cmake: Path
    ninja: Path
    recorded: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    """The runtime that a recipe asks for.

    Args:
        version: of llama-cpp-python, the same in the recipe and in the sdist.
        cpu: `all`; `native`, which is a short list for this machine; or names from `recipe.choices.CPU_VARIANTS`.
    """

    version: str
    cpu: str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CudaSpec:
    """The CUDA backend that a recipe asks for.

    Args:
        version: of llama-cpp-python; a backend fits the runtime of the same sources only.
        architectures: of graphics processors, as numbers from `recipe.choices.CUDA_ARCHITECTURES`.
    """

    version: str
    architectures: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BuiltRuntime:
    """A finished wheel in the cache, and its facts for the contents of a bundle.

    Args:
        path: the wheel.
        sha256: of the wheel.
        size: of the wheel, in bytes.
        unpacked_size: of all its files, in bytes.
        version: with the local part, for example `0.3.36+appliance.1a2b3c4d`.
        variants: the CPU variants inside, lowest first; none for the CUDA backend.
        glibc: the lowest glibc that has every symbol it needs, for example `2.34`.
        glibcxx: the same for `GLIBCXX` of libstdc++, for example `3.4.30`.
        cxxabi: the same for `CXXABI`, for example `1.3.13`.
        toolchain: name and version of everything that shaped its bytes.
        flags: every setting that shaped its bytes.
    """

    path: Path
    sha256: Digest
    size: int
    unpacked_size: int
    version: str
    variants: tuple[str, ...]
    glibc: str
    glibcxx: str
    cxxabi: str
    toolchain: dict[str, str]
    flags: tuple[str, ...]
