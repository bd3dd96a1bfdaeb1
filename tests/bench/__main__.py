"""The project's figures, each beside what people use today, in one run: `python -m tests.bench [--write README.md]`.

Rules:
- a figure is a ratio to the peer or limit measured in the same run, on the same bytes; the demo has a limit in seconds;
- each side runs several times, alternately, and its best time counts: the machine's other work only ever adds;
- a missed figure is printed as missed, and the exit code is 1; nothing is rounded in our favour.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.build.store import Source
from appliance.build.writer import remove_bundle
from tests.appliance.shipped import shipped_model
from tests.bench.tokens import PROMPT_TOKENS, WRITTEN_TOKENS, measure_all, our_sides, stock_side
from tests.toy import build_toy

TOP = Path(__file__).resolve().parents[2]
RECIPE = TOP / "bundles" / "recipes" / "smollm2.yaml"
PROGRAM = (sys.executable, "-m", "appliance.cli.main")
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->"
ROUNDS = 5


@dataclass(frozen=True)
class Figure:
    """One measured figure: what, against what, both in seconds, and the greatest ratio that counts as reached."""

    what: str
    against: str
    ours_s: float
    theirs_s: float
    reach: float

    @property
    def ratio(self) -> float:
        return self.ours_s / self.theirs_s

    @property
    def is_reached(self) -> bool:
        return self.ratio <= self.reach


def run(*command: str | Path) -> None:
    """Run a program that must succeed; what it says is shown only when it does not."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=TOP)
    if done.returncode:
        raise SystemExit(f"bench: {command[0]} ended with {done.returncode}\n{done.stderr[-2000:]}")


def appliance(*arguments: str | Path) -> None:
    run(*PROGRAM, *arguments)


def best(sides: Sequence[Callable[[], None]], rounds: int = ROUNDS) -> list[float]:
    """The best time of each side, in seconds, the sides taking turns."""
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for number, side in enumerate(sides):
            started = time.perf_counter()
            side()
            times[number].append(time.perf_counter() - started)
    return [min(taken) for taken in times]


def verify_figure(folder: Path) -> Figure:
    """Verify a bundle of 1 GiB of distinct bytes, cache warm, against one pass of openssl over the same bytes."""
    big = folder / "big"
    with big.open("wb") as file:
        for number in range(1 << 10):
            file.write(random.Random(number).randbytes(1 << 20))
    workspace, bundle = build_toy(folder / "toy", extra=[Source("licences/big", "licence", file=big)])
    big.unlink()
    blobs = sorted((bundle / "blobs/sha256").iterdir())
    ours, theirs = best(
        (
            lambda: appliance("verify", bundle, "--workspace", workspace.path),
            lambda: run("openssl", "dgst", "-sha256", *blobs),
        )
    )
    return Figure("verify a bundle of 1 GiB, warm", "`openssl dgst -sha256` over the same bytes", ours, theirs, 0.60)


def build_figure(folder: Path) -> Figure:
    """Build a bundle from cached sources, against packing, compressing and hashing the same files."""
    files, workspace = folder / "files", folder / "built"
    files.mkdir()
    for number, blob in enumerate(sorted((folder / "workspace/dist/smollm2-1.0.0/blobs/sha256").iterdir())):
        shutil.copy(blob, files / str(number))
    appliance("init", workspace)

    def ours() -> None:
        remove_bundle(workspace / "dist/smollm2-1.0.0")
        appliance("build", RECIPE, "--workspace", workspace)

    def theirs() -> None:
        command = "tar -cf - files | zstd -1 -q -f -o packed.tar.zst && sha256sum files/* > sums && sync packed.tar.zst"
        run("sh", "-c", f"cd '{folder}' && {command}")

    ours_s, theirs_s = best((ours, theirs), rounds=3)
    return Figure("build from cached sources", "`tar`, `zstd -1`, `sha256sum` of the same files", ours_s, theirs_s, 0.7)


def demo_figure(folder: Path) -> Figure:
    """The demo in a fresh folder with everything cached, against its limit of a minute."""
    [taken] = best((lambda: _fresh_demo(folder / "demo"),), rounds=2)
    return Figure("demo, everything cached", "60 s", taken, 60.0, 1.0)


def token_figures(folder: Path) -> list[Figure]:
    """Reading a prompt and writing an answer: the chosen variant, what pip compiles here, and the least variant."""
    _, model = shipped_model()
    place = folder / "tokens"
    place.mkdir()
    (ours, least), stock = our_sides(place, model), stock_side(place)
    found = measure_all([ours, stock, least], model)
    times = {name: sum(parts) for name, parts in found.items()}
    for name, (prompt, written) in found.items():
        rates = f"{PROMPT_TOKENS / prompt:.0f} tokens/s read, {WRITTEN_TOKENS / written:.0f} written"
        print(f"{name}: {rates}", file=sys.stderr)
    what = f"{PROMPT_TOKENS} tokens read, {WRITTEN_TOKENS} written, one thread ({ours.variant})"
    return [
        Figure(what, "`pip install llama-cpp-python`, compiled here", times[ours.name], times[stock.name], 1.05),
        Figure(what, "the same without a choice of variant (x64)", times[ours.name], times[least.name], 0.50),
    ]


def _fresh_demo(folder: Path) -> None:
    remove_bundle(folder / "workspace/dist/smollm2-1.0.0")
    shutil.rmtree(folder, ignore_errors=True)
    appliance("demo", "--folder", folder)


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    rows = [
        f"| {one.what} | {one.against} | {one.ours_s:.2f} s / {one.theirs_s:.2f} s = {one.ratio:.2f} "
        f"| ≤ {one.reach:.2f} | {'reached' if one.is_reached else '**missed**'} |"
        for one in figures
    ]
    head = ["| what | against | measured | to reach | |", "|---|---|---|---|---|"]
    cores = len(os.sched_getaffinity(0))
    return "\n".join(
        [f"{cores} cores, {platform.machine()}, Python {platform.python_version()}:", "", *head, *rows, ""]
    )


def write(readme: Path, text: str) -> None:
    """Put the table between its marks."""
    before, rest = readme.read_text().split(BEGIN)
    readme.write_text(f"{before}{BEGIN}{text}{END}{rest.split(END)[1]}")


def main() -> int:
    """Measure, print, and optionally write the README; 1 where a figure is missed."""
    options = argparse.ArgumentParser(prog="python -m tests.bench")
    options.add_argument("--write", type=Path, metavar="README", help="put the table into this file")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="appliance-bench-") as name:
        folder = Path(name)
        appliance("init", folder / "workspace")
        appliance("build", RECIPE, "--workspace", folder / "workspace")
        figures = [verify_figure(folder), build_figure(folder), demo_figure(folder), *token_figures(folder)]
    text = table(figures)
    print(text)
    if chosen.write:
        write(chosen.write, text)
    return 0 if all(one.is_reached for one in figures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
