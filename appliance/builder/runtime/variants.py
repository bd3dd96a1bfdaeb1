"""The CPU variants of the ggml backend: their names, and what each needs of a processor.

Owns the table and how a recipe's `cpu:` becomes a list. It must never decide what a host runs: hosts try the variants,
because flags can lie (a virtual machine that shows AMX and dies on it).

Rules:
- the table is compared with the sdist when it is unpacked, so that a new llama.cpp cannot add or change one silently;
- `x64` is always built: it is the reference for right results, and what runs where nothing else does.
"""

from __future__ import annotations

from pathlib import Path

from signing.errors import HostUnfitError, UsageError

_AVX2 = ("SSE42", "AVX", "F16C", "FMA", "AVX2", "BMI2")
_AVX512 = (*_AVX2, "AVX512")

VARIANTS: dict[str, tuple[str, ...]] = {
    "x64": (),
    "sse42": ("SSE42",),
    "sandybridge": ("SSE42", "AVX"),
    "ivybridge": ("SSE42", "AVX", "F16C"),
    "piledriver": ("SSE42", "AVX", "F16C", "FMA"),
    "haswell": _AVX2,
    "skylakex": _AVX512,
    "cannonlake": (*_AVX512, "AVX512_VBMI"),
    "cascadelake": (*_AVX512, "AVX512_VNNI"),
    "icelake": (*_AVX512, "AVX512_VBMI", "AVX512_VNNI"),
    "cooperlake": (*_AVX512, "AVX512_VNNI", "AVX512_BF16"),
    "zen4": (*_AVX512, "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16"),
    "alderlake": (*_AVX2, "AVX_VNNI"),
    "sapphirerapids": (*_AVX512, "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16", "AMX_TILE", "AMX_INT8"),
}
"""Every x86-64 variant of llama.cpp, lowest first, with the features that it is compiled for."""

REFERENCE = "x64"
SHORT_LISTS = ("all", "native")

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
    """Turn a recipe's `cpu:` into the variants to build, lowest first.

    `native` is the reference, plus haswell, plus every variant that this machine's flags allow and no other allowed one
    contains: three or four instead of fourteen.

    Args:
        cpu: `all`, `native`, or names.
        cpu_flags: this machine's, from `read_cpu_flags`; used by `native` only.

    Raises:
        UsageError: an unknown name, or none at all.
    """
    if cpu == "all":
        return tuple(VARIANTS)
    wanted = _native(cpu_flags) if cpu == "native" else {cpu} if isinstance(cpu, str) else set(cpu)
    if not wanted or wanted - VARIANTS.keys():
        raise UsageError(
            "runtime.variant-unknown",
            "runtime.cpu",
            expected=f"all, native, or a list of: {', '.join(VARIANTS)}",
            found=", ".join(sorted(wanted - VARIANTS.keys())) or "an empty list",
        )
    return tuple(name for name in VARIANTS if name in wanted | {REFERENCE})


def read_cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The flags that the kernel shows for the first processor.

    Raises:
        HostUnfitError: the file shows none, so this is no x86-64 Linux.
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


def _native(cpu_flags: frozenset[str]) -> set[str]:
    def runs(name: str) -> bool:
        return all(flag in cpu_flags for feature in VARIANTS[name] for flag in _CPU_FLAGS[feature])

    allowed = {name for name in VARIANTS if runs(name)}
    largest = {name for name in allowed if not any(set(VARIANTS[name]) < set(VARIANTS[other]) for other in allowed)}
    return largest | ({"haswell"} & allowed) | {REFERENCE}
