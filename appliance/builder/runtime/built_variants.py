"""The CPU variants of ggml that a runtime is built with.

Owns how a recipe's `cpu:` becomes a list of variants. It must never decide what a host runs. Hosts try the variants,
because flags can be wrong: a virtual machine may show AMX and die on it.

Rules:
- the table of variants is compared with the sdist when it is unpacked, so that a new llama.cpp cannot change it
  silently;
- `x64` is always built: it is the reference for right results, and what runs where no other variant does.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from appliance.builder.recipe.choices import CPU_VARIANTS, REFERENCE_VARIANT
from signing.errors import HostUnfitError, UsageError

_CPU_FLAGS: dict[str, tuple[str, ...]] = {
    "SSE42": ("sse4_2",),
    "AVX": ("avx",),
    "F16C": ("f16c",),
    "FMA": ("fma",),
    "AVX2": ("avx2",),
    "BMI2": ("bmi2",),
    "AVX512": ("avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"),
    "AVX512_VBMI": ("avx512vbmi",),
    "AVX512_VNNI": ("avx512_vnni",),
    "AVX512_BF16": ("avx512_bf16",),
    "AVX_VNNI": ("avx_vnni",),
    "AMX_TILE": ("amx_tile",),
    "AMX_INT8": ("amx_int8",),
}


def choose_variants(cpu: str | tuple[str, ...], cpu_flags: frozenset[str]) -> tuple[str, ...]:
    """The variants to build for a recipe's `cpu:`, lowest first.

    `native` is the reference, haswell, and the largest variants that this machine's flags allow: three or four instead
    of fourteen.

    Args:
        cpu: `all`, `native`, or names.
        cpu_flags: this machine's, from `read_cpu_flags`; used by `native` only.

    Raises:
        UsageError: an unknown name, or none at all.
    """
    if cpu == "all":
        return tuple(CPU_VARIANTS)
    wanted = _native(cpu_flags) if cpu == "native" else {cpu} if isinstance(cpu, str) else set(cpu)
    if not wanted or wanted - CPU_VARIANTS.keys():
        raise UsageError(
            "runtime.variant-unknown",
            "runtime.cpu",
            expected=f"all, native, or a list of: {', '.join(CPU_VARIANTS)}",
            found=", ".join(sorted(wanted - CPU_VARIANTS.keys())) or "an empty list",
        )
    return tuple(name for name in CPU_VARIANTS if name in wanted | {REFERENCE_VARIANT})


def read_cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The flags that the kernel reports for the first processor.

    Raises:
        HostUnfitError: the file has none, so this is no x86-64 Linux.
    """
    try:
        for line in cpuinfo.read_text("ascii", "replace").splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    raise HostUnfitError(
        "runtime.no-cpu-flags", str(cpuinfo), expected="x86-64 Linux", hint="name the variants in runtime.cpu"
    )


def variants_for_trial(built: Iterable[str], cpu_flags: frozenset[str]) -> tuple[str, ...]:
    """The variants of a runtime that this machine's flags allow, newest generation first, and the reference last.

    Args:
        built: the variants in the runtime.
        cpu_flags: from `read_cpu_flags`.
    """
    order = {name: rank for rank, name in enumerate(CPU_VARIANTS)}
    fitting = {name for name in built if name in CPU_VARIANTS and _runs(CPU_VARIANTS[name], cpu_flags)}
    return tuple(sorted(fitting | {REFERENCE_VARIANT}, key=lambda name: order[name], reverse=True))


def _runs(features: tuple[str, ...], cpu_flags: frozenset[str]) -> bool:
    return all(flag in cpu_flags for feature in features for flag in _CPU_FLAGS[feature])


def _native(cpu_flags: frozenset[str]) -> set[str]:
    allowed = {name: set(features) for name, features in CPU_VARIANTS.items() if _runs(features, cpu_flags)}
    largest = {name for name, features in allowed.items() if not any(features < other for other in allowed.values())}
    return largest | ({"haswell"} & allowed.keys()) | {REFERENCE_VARIANT}
