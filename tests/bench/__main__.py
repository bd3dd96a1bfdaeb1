"""The project's figures, each beside what people use today, in one run: `python -m tests.bench`.

Owns the list of rows, the table, and what is said of figures that no row measures. Rules are in `figure`.
"""

from __future__ import annotations

import argparse
import compileall
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from appliance.builder.chunking.bundle_writer import remove_bundle
from tests.appliance.shipped import shipped_model
from tests.bench import builds, checks, copies, installs, life, rebuild, serving, sticks
from tests.bench.figure import TOP, Figure, Taken, take_turns
from tests.bench.material import Material, appliance
from tests.bench.tokens import PROMPT_TOKENS, WRITTEN_TOKENS, measure_all, our_sides, stock_side

BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->"


def demo(material: Material) -> list[Figure]:
    """The demo in a fresh folder with everything cached, against its limit of a minute."""
    folder = material.folder / "demo"

    def fresh() -> Taken:
        remove_bundle(folder / "workspace" / "dist" / "smollm2-1.0.0")
        shutil.rmtree(folder, ignore_errors=True)
        return appliance("demo", "--folder", folder)

    [taken] = take_turns((fresh,), 2)
    return [Figure("demo, everything cached", "60 s", taken.wall_s, 60.0, 1.0)]


def tokens(material: Material) -> list[Figure]:
    """Reading a prompt and writing an answer: the chosen variant, what pip compiles here, and the least variant."""
    _, model = shipped_model()
    place = material.folder / "tokens"
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


ROWS: dict[str, Callable[[Material], list[Figure]]] = {
    "verify": checks.verify,
    "model-signing": checks.model_signing,
    "metadata": checks.metadata,
    "build": builds.build,
    "build-demo": builds.build_demo,
    "delta": builds.delta,
    "install-copy": copies.install_copy,
    "install": installs.install,
    "rebuild": rebuild.rebuild,
    "stick-write": sticks.stick_write,
    "demo": demo,
    "life": life.life,
    "serving": serving.serving,
    "tokens": tokens,
}
"""Every measurement, by the name that `--only` takes."""

UNMEASURED = (("start of a served model at E4", "needs a kernel with fs-verity; the test guest reads 0 bytes"),)
"""Figures of the design without a row here."""


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table, and those that are not there."""
    head = ["| what | against | measured | to reach | |", "|---|---|---|---|---|"]
    rows = [figure.row() for figure in figures]
    absent = [f"| {what} | | {why} | | |" for what, why in UNMEASURED]
    cores = len(os.sched_getaffinity(0))
    machine = f"{cores} cores, {platform.machine()}, Python {platform.python_version()}:"
    return "\n".join([machine, "", *head, *rows, *absent, ""])


def write(page: Path, text: str) -> None:
    """Put the table between its marks."""
    before, rest = page.read_text().split(BEGIN)
    page.write_text(f"{before}{BEGIN}{text}{END}{rest.split(END)[1]}")


def main() -> int:
    """Measure, print, and optionally write them into a page; 1 where a figure is missed."""
    options = argparse.ArgumentParser(prog="python -m tests.bench")
    options.add_argument("--only", choices=ROWS, action="append", help="measure only this; may be given again")
    options.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    chosen = options.parse_args()
    if chosen.write and chosen.only:
        options.error("--write wants every row")
    for package in ("appliance", "bundles", "signing"):  # as an installer does; a checkout may not be compiled
        compileall.compile_dir(TOP / package, quiet=1)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="appliance-bench-", ignore_cleanup_errors=True) as name:
        material = Material(Path(name))
        try:
            for row in chosen.only or ROWS:
                print(f"measuring: {row}", file=sys.stderr)
                figures += ROWS[row](material)
        finally:
            for bundle in Path(name).glob("**/dist/*"):  # sealed: who is not root can only remove them like this
                remove_bundle(bundle)
    text = table(figures)
    print(text)
    if chosen.write:
        write(chosen.write, text)
    return 0 if all(figure.is_reached for figure in figures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
