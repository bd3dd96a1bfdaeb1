"""What a recipe may choose from: systems, packages, file endings, quantisations, CPU variants, CUDA architectures.

Owns constants only, so that reading a recipe loads none of the modules that build. These modules import the
constants from here. It must never import another module of the builder.
"""

from __future__ import annotations

OS_GLIBC = {
    "debian-12": (2, 36),
    "debian-13": (2, 41),
    "ubuntu-22.04": (2, 35),
    "ubuntu-24.04": (2, 39),
    "rhel-9": (2, 34),
}
"""The systems that a target may name, and the version of their C library. Debian 12 and 13 are tested."""

SUITES = {"debian-12": "bookworm", "debian-13": "trixie"}
"""The systems whose packages can be packed, with the name of the suite in Debian's archive."""

BARE_HOST_PACKAGES = ("libstdc++6", "openssl", "python3", "python3-venv")
"""`packages: bare-host`: what this program and the runtime need on a host with nothing but its system installed."""

WEIGHTS_SUFFIX = ".safetensors"
"""The ending of a file of weights that can be converted to GGUF."""

MODEL_FILE_SUFFIXES = (WEIGHTS_SUFFIX, ".json", ".txt", ".model", ".jinja")
"""The endings of files that may lie beside the weights. None is a program or a pickle, which would be one."""

PART_SEPARATOR = " + "
"""Stands between the sources of a model's parts where they are written in one line."""

QUANTISATIONS = (
    *("Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M", "Q5_0", "Q5_1", "Q5_K_S", "Q5_K_M"),
    *("Q6_K", "Q8_0", "IQ4_NL", "IQ4_XS", "F16", "BF16", "F32"),
)
"""Types that need nothing but the model itself. Smaller IQ types need an importance matrix, which nobody can check."""

_AVX2 = ("SSE42", "AVX", "F16C", "FMA", "AVX2", "BMI2")
_AVX512 = (*_AVX2, "AVX512")

CPU_VARIANTS: dict[str, tuple[str, ...]] = {
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
"""Every x86-64 variant of ggml's CPU backend, lowest first, with the features that it is compiled for."""

REFERENCE_VARIANT = "x64"
"""The variant that is always built: the reference for right results, and what runs where no other variant does."""

CPU_SHORT_LISTS = ("all", "native")
"""What `cpu:` may name in place of a list of variants."""

CUDA_ARCHITECTURES = {75: "75", 80: "80", 86: "86", 89: "89", 90: "90", 100: "100", 120: "120a"}
"""Compute capabilities of graphics processors, with the CUDA compiler's name for each: 80 is A100, 90 is H100."""
