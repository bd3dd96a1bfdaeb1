"""On an emulated processor the trial chooses a variant that runs and computes right there.

QEMU emulates a processor of 2008 without AVX, and one with every instruction that QEMU has. It is slow: a token takes
some seconds.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from appliance.host.process.programs import Programs
from appliance.host.runtime import variant_choice
from appliance.host.runtime.unpacked import UnpackedRuntime, of_wheel
from appliance.host.runtime.variant_choice import BENCH, Bench, choose_variant
from bundles.progress import ignore
from tests.appliance.shipped import shipped_model, shipped_runtime

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

QEMU = shutil.which("qemu-x86_64-static")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> UnpackedRuntime:
    if QEMU is None:
        pytest.skip("qemu-x86_64-static is not here: apt install qemu-user-static")
    return of_wheel(shipped_runtime().path, tmp_path_factory.mktemp("runtime"))


def emulated(unpacked: UnpackedRuntime, folder: Path, cpu: str, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench whose programs run on an emulated processor."""
    monkeypatch.setattr(variant_choice, "SKETCH", variant_choice.BenchLoad(2, 1, False))
    monkeypatch.setattr(variant_choice, "SLOW_TOKENS_PER_S", 1 << 30)
    monkeypatch.setattr(variant_choice, "BASE_TIMEOUT_S", 600)

    def wrap(path: Path, program: str | Path) -> Path:
        path.unlink(missing_ok=True)
        path.write_text(f'#!/bin/sh\nexec {QEMU} -cpu {cpu} {program} "$@"\n')
        path.chmod(0o755)
        return path

    def folder_of(variant: str) -> Path:
        made = folder / variant
        if not made.exists():
            shutil.copytree(unpacked.folder_with(variant), made, copy_function=os.link)
            (made / BENCH).rename(made / f"{BENCH}-real")
            wrap(made / BENCH, made / f"{BENCH}-real")
        return made

    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    _, model = shipped_model()
    return Bench(folder_of, wrap(folder / "python", sys.executable), model, 1, Programs(folder, lock), unpacked.package)


@pytest.mark.parametrize(
    ("cpu", "offered", "fit", "unfit"),
    [
        ("Nehalem", ("haswell", "sandybridge", "sse42", "x64"), {"sse42", "x64"}, ["haswell", "sandybridge"]),
        ("max", ("sapphirerapids", "haswell", "x64"), {"haswell", "x64"}, ["sapphirerapids"]),
    ],
)
def test_trial_chooses_a_variant_that_runs_and_is_right_on_another_processor(
    unpacked: UnpackedRuntime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cpu: str,
    offered: tuple[str, ...],
    fit: set[str],
    unfit: list[str],
) -> None:
    bench = emulated(unpacked, tmp_path, cpu, monkeypatch)
    try:
        choice = choose_variant(offered, bench, ignore)
    finally:
        os.close(bench.programs.lock)
    assert choice.variant in fit
    assert [reason.split(":")[0] for reason in choice.passed_over] == unfit
