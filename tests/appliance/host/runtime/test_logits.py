"""Two evaluations are compared by their probabilities of the next token; a file that is no result is refused."""

from __future__ import annotations

import array
import math
from pathlib import Path

import pytest

from appliance.host.runtime.logits import MAX_BYTES, TOLERANCE, Logits, read_logits, write_logits


def logits(*values: float) -> Logits:
    return Logits(array.array("f", values))


def test_divergence_is_the_mean_over_both_rows() -> None:
    even, lean = (0.0, 0.0), (math.log(3), 0.0)
    # From (1/2, 1/2) to (3/4, 1/4): ln 2 - (ln 3 - ln 4 + ln 1 - ln 4) / 2 - ... calculated by hand.
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert logits(*even, *even).divergence(logits(*lean, *even)) == pytest.approx(expected / 2, rel=1e-5)
    assert logits(*lean, *even).divergence(logits(*lean, *even)) == 0


def test_logits_that_are_all_shifted_by_one_number_do_not_diverge() -> None:
    assert logits(1, 2, 3, 4).divergence(logits(11, 12, -7, -6)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("wrong", [(4, 3, 2, 1), (1e30, 0, 3, 4), (0, 0, 0, 40), (-1e38, 1e38, 3, 4)])
def test_other_tokens_diverge_whatever_the_numbers(wrong: tuple[float, ...]) -> None:
    assert not logits(1, 2, 3, 4).divergence(logits(*wrong)) <= TOLERANCE


def test_evaluations_of_different_models_diverge_infinitely() -> None:
    assert logits(1, 2).divergence(logits(1, 2, 3, 4)) == math.inf


def test_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_logits(tmp_path / "r", array.array("f", [1.5, -2.0, 0.0, 3.0]))
    assert read_logits(tmp_path / "r") == logits(1.5, -2.0, 0.0, 3.0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        bytes(12),
        bytes(16),
        array.array("f", [1.0, math.nan]).tobytes(),
        array.array("f", [1.0, math.inf]).tobytes(),
        None,
    ],
)
def test_file_that_is_not_a_result_is_refused(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "r").write_bytes(data)
    assert read_logits(tmp_path / "r") is None


def test_file_that_is_too_long_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "r").open("wb") as file:
        file.write(b"\1\2\3\4")
        file.truncate(MAX_BYTES + 8)
    assert read_logits(tmp_path / "r") is None
