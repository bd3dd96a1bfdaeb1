"""The processor's flags, and the CPU variants of the runtime that they suffice for.

Owns the order of the variants and the flags that each is compiled for. The table is that of llama.cpp's
`ggml/src/CMakeLists.txt` for x86. Flags only save time: a virtual processor may show flags that it cannot run, so the
trial of `appliance.host.runtime.variant_choice` decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_SSE42 = ("sse4_2",)
_AVX = (*_SSE42, "avx")
_F16C = (*_AVX, "f16c")
_AVX2 = (*_F16C, "fma", "avx2", "bmi2")
_AVX512 = (*_AVX2, "avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw")
_ICE = (*_AVX512, "avx512vbmi", "avx512_vnni")

FLAGS: dict[str, tuple[str, ...]] = {
    "x64": (),
    "sse42": _SSE42,
    "sandybridge": _AVX,
    "ivybridge": _F16C,
    "piledriver": (*_F16C, "fma"),
    "haswell": _AVX2,
    "skylakex": _AVX512,
    "cannonlake": (*_AVX512, "avx512vbmi"),
    "cascadelake": (*_AVX512, "avx512_vnni"),
    "icelake": _ICE,
    "cooperlake": (*_AVX512, "avx512_vnni", "avx512_bf16"),
    "zen4": (*_ICE, "avx512_bf16"),
    "alderlake": (*_AVX2, "avx_vnni"),
    "sapphirerapids": (*_ICE, "avx512_bf16", "amx_tile", "amx_int8"),
}
"""The variants, from the oldest generation to the newest, with the flags that each needs."""

REFERENCE = "x64"
"""The variant that needs no flags and runs everywhere; its results are what others are compared with."""


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Read the flags of the first processor, as the kernel names them."""
    for line in _lines(path):
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def cpu_identity(path: Path = Path("/proc/cpuinfo")) -> str:
    """Describe the processor for the record of a trial: another text means that the trial must be repeated."""
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags", "Features")
    fields: dict[str, str] = {}
    for line in _lines(path):
        name, _, value = line.partition(":")
        if name.strip() in wanted:
            fields.setdefault(name.strip(), value.strip())
    return "\n".join(f"{name}={fields[name]}" for name in sorted(fields))


def fitting_variants(offered: Iterable[str], flags: frozenset[str]) -> tuple[str, ...]:
    """Choose the variants that are worth a trial, newest generation first; unknown names come last.

    Args:
        offered: the variants of the bundle.
        flags: of this processor.
    """
    order = {name: rank for rank, name in enumerate(FLAGS)}
    fitting = [name for name in offered if flags.issuperset(FLAGS.get(name, ()))]
    return tuple(sorted(fitting, key=lambda name: order.get(name, -1), reverse=True))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
