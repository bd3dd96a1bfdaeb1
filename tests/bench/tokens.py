"""Tokens per second of our runtime, beside the stock one: the same model, prompt, threads and calls, in children.

Rules:
- ours is what a host would get: the variant that wins the trial on this machine;
- each side reads a prompt and then writes tokens one by one, through the same functions of its own binding;
- the two take turns, each several times, and the best time of each counts;
- one thread, and the seconds that it had the processor: what else the machine does changes little.

Command line of the child: `python -m tests.bench.tokens PACKAGE LIBRARIES VARIANT MODEL`, where LIBRARIES is `-`
for a stock wheel.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import subprocess
import sys
import time
import typing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

TOP = Path(__file__).resolve().parents[2]
PROMPT_TOKENS, WRITTEN_TOKENS = 256, 64
ROUNDS = 5
_CONTEXT = 512


@dataclass(frozen=True)
class Side:
    """One runtime: what it is called, where its package lies, and how its libraries are chosen."""

    name: str
    package: Path
    libraries: Path | None = None
    variant: str = "-"

    def measure(self, model: Path) -> tuple[float, float]:
        """Seconds for the prompt and for the tokens after it."""
        words = [str(self.package), str(self.libraries or "-"), self.variant, str(model)]
        command = [sys.executable, "-m", "tests.bench.tokens", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TOP)
        if done.returncode:
            raise SystemExit(f"bench: {self.name} ended with {done.returncode}\n{done.stderr[-2000:]}")
        prompt, written = done.stdout.splitlines()[-1].split()
        return float(prompt), float(written)


def measure_all(sides: list[Side], model: Path) -> dict[str, tuple[float, float]]:
    """The best times of each side, the sides taking turns."""
    found: dict[str, list[tuple[float, float]]] = {side.name: [] for side in sides}
    for _ in range(ROUNDS):
        for side in sides:
            found[side.name].append(side.measure(model))
    return {name: (min(one for one, _ in times), min(two for _, two in times)) for name, times in found.items()}


def our_sides(folder: Path, model: Path) -> tuple[Side, Side]:
    """Our runtime with the variant that a trial on this machine finds, and with the one that runs everywhere."""
    from appliance.host.machine.cpu import REFERENCE, cpu_flags, fitting_variants
    from appliance.host.process.programs import Programs
    from appliance.host.runtime.unpacked import of_wheel
    from appliance.host.runtime.variant_choice import Bench, choose_variant
    from bundles.progress import ignore
    from tests.appliance.shipped import shipped_runtime

    unpacked = of_wheel(shipped_runtime().path, folder)
    with (folder / "lock").open("w") as lock:
        programs = Programs(folder, lock.fileno())
        bench = Bench(unpacked.folder_with, Path(sys.executable), model, 1, programs, unpacked.package)
        choice = choose_variant(fitting_variants(unpacked.variants, cpu_flags()), bench, ignore)
    chosen, least = (
        Side(f"ours, {variant}", unpacked.package, unpacked.folder_with(variant), variant)
        for variant in (choice.variant, REFERENCE)
    )
    return chosen, least


def stock_side(folder: Path) -> Side:
    """The stock runtime."""
    from tests.bench.stock import stock_wheel, unpack

    return Side("stock", unpack(stock_wheel(), folder / "stock"))


def run_tokens(binding: Any, model_path: Path) -> tuple[float, float]:
    """Read the prompt and write tokens: the same calls for both sides.

    Returns:
        Seconds for either.
    """
    binding.llama_log_set(quiet := binding.llama_log_callback(lambda *_: None), None)
    binding.llama_backend_init()
    model = binding.llama_model_load_from_file(bytes(model_path), binding.llama_model_default_params())
    params = binding.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = _CONTEXT, PROMPT_TOKENS, PROMPT_TOKENS
    params.n_threads = params.n_threads_batch = 1
    context = binding.llama_init_from_model(model, params)
    width = binding.llama_vocab_n_tokens(binding.llama_model_get_vocab(model))

    def decode(tokens: list[int]) -> int:
        held = (ctypes.c_int32 * len(tokens))(*tokens)
        assert binding.llama_decode(context, binding.llama_batch_get_one(held, len(tokens))) == 0
        row = binding.llama_get_logits_ith(context, -1)
        # Any token does: what is measured does not depend on which.
        return int(abs(row[0]) * 1000) % width

    started = time.process_time()
    token = decode([7 + 13 * number % 1000 for number in range(PROMPT_TOKENS)])
    read = time.process_time()
    for _ in range(WRITTEN_TOKENS):
        token = decode([token])
    del quiet
    return read - started, time.process_time() - read


def _stock_binding(package: Path) -> ModuleType:
    # Of the package only the module that declares the C interface: the rest wants numpy and does not change the speed.
    holder = ModuleType("llama_cpp")
    holder.__path__ = [str(package / "llama_cpp")]
    sys.modules["llama_cpp"] = holder
    sys.modules.setdefault("typing_extensions", typing)
    return importlib.import_module("llama_cpp.llama_cpp")


def main(words: list[str]) -> int:
    """The child: as in the module's docstring."""
    package, libraries, variant, model = words
    if libraries == "-":
        binding = _stock_binding(Path(package))
    else:
        from appliance.host.runtime.loader import load_binding

        binding = load_binding(Path(libraries), variant, Path(package))
    prompt, written = run_tokens(binding, Path(model))
    sys.stdout.write(f"{prompt} {written}\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
