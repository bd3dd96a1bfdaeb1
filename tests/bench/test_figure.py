"""A figure shows honestly whether it was reached, and the table in docs/figures.md is the one that was printed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.bench.__main__ import BEGIN, END, ROWS, UNMEASURED, table, write
from tests.bench.figure import TOP, Figure, Taken, best, run


def figure(ours: float, reach: float = 0.6) -> Figure:
    return Figure("this", "that", ours, 1.0, reach)


@pytest.mark.parametrize(
    ("ours", "shown", "verdict"),
    [(0.6, "0.60", "reached"), (0.6001, "0.61", "**missed**"), (0.59, "0.59", "reached"), (1.2, "1.20", "**missed**")],
)
def test_a_ratio_is_never_rounded_in_our_favour(ours: float, shown: str, verdict: str) -> None:
    row = figure(ours).row()
    assert f"= {shown} | ≤ 0.60 | {verdict} |" in row
    assert figure(ours).is_reached == (verdict == "reached")


def test_the_best_of_each_side_counts_and_the_most_memory() -> None:
    assert best((Taken(2, 1, 5), Taken(1, 3, 7))) == [Taken(1, 1, 7)]


def test_a_child_is_measured_without_what_its_parent_holds() -> None:
    held = bytearray(os.urandom(1 << 16)) * (64 << 4)  # 64 MiB
    taken = run(sys.executable, "-I", "-c", "bytearray(b'x') * (8 << 20)")
    assert 8 << 20 < taken.peak_bytes < len(held)
    assert taken.cpu_s > 0


def test_a_side_that_fails_ends_the_run_and_tells_why() -> None:
    with pytest.raises(SystemExit, match="ended with 3\\n.*why"):
        run("sh", "-c", "echo why >&2; exit 3")


def test_the_page_of_figures_holds_the_table_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "figures.md"
    page.write_text(f"before\n{BEGIN}old\n{END}\nafter\n")
    write(page, table([figure(0.5)]))
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert figure(0.5).row() in text
    assert "old" not in text
    assert all(what in text for what, _ in UNMEASURED)
    assert BEGIN in (TOP / "docs" / "figures.md").read_text()


def test_every_row_states_what_it_measures() -> None:
    assert all(row.__doc__ for row in ROWS.values())
