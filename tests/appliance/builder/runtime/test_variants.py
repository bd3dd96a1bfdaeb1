"""Which CPU variants a recipe's `cpu:` means."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.builder.recipe.choices import CPU_VARIANTS
from appliance.builder.runtime.built_variants import choose_variants, read_cpu_flags
from signing.errors import HostUnfitError, UsageError

HASWELL = frozenset({"sse4_2", "avx", "f16c", "fma", "avx2", "bmi2"})
ICELAKE = HASWELL | {"avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw", "avx512vbmi", "avx512_vnni"}


def test_all_means_every_variant_lowest_first() -> None:
    assert choose_variants("all", frozenset()) == tuple(CPU_VARIANTS)
    assert next(iter(CPU_VARIANTS)) == "x64"


def test_a_list_keeps_the_tables_order_and_always_holds_the_reference() -> None:
    assert choose_variants(("zen4", "haswell"), frozenset()) == ("x64", "haswell", "zen4")
    assert choose_variants("haswell", frozenset()) == ("x64", "haswell")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (frozenset(), ("x64",)),
        (frozenset({"sse4_2", "avx"}), ("x64", "sandybridge")),
        (HASWELL, ("x64", "haswell")),
        (HASWELL | {"avx_vnni"}, ("x64", "haswell", "alderlake")),
        (ICELAKE, ("x64", "haswell", "icelake")),
        (ICELAKE | {"avx512_bf16", "avx_vnni"}, ("x64", "haswell", "zen4", "alderlake")),
    ],
)
def test_native_is_a_short_list_with_a_fallback_for_flags_that_lie(
    flags: frozenset[str], expected: tuple[str, ...]
) -> None:
    assert choose_variants("native", flags) == expected


@pytest.mark.parametrize("cpu", ["pentium", ("haswell", "z80"), ()])
def test_an_unknown_variant_is_named_beside_those_that_exist(cpu: str | tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as raised:
        choose_variants(cpu, frozenset())

    assert raised.value.exit_code == 2
    assert "sapphirerapids" in raised.value.expected
    assert raised.value.found in ("pentium", "z80", "an empty list")


def test_flags_come_from_the_first_processor(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu sse4_2 avx\n\nprocessor\t: 1\nflags\t\t: none\n")

    assert read_cpu_flags(tmp_path / "cpuinfo") == {"fpu", "sse4_2", "avx"}


def test_native_is_refused_on_a_machine_without_x86_flags(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd\n")

    for path in (tmp_path / "cpuinfo", tmp_path / "absent"):
        with pytest.raises(HostUnfitError):
            read_cpu_flags(path)
