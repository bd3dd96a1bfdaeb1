"""The parts of a split GGUF are a whole set in its order, or are refused by what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.builder.models.split_set import is_split_set
from signing.errors import UsageError
from tests.sim.odd_models import servable, split_parts

THREE = split_parts(3)


def judge(folder: Path, *parts: bytes) -> bool:
    paths = []
    for at, data in enumerate(parts, 1):
        paths.append(folder / f"part{at}.gguf")
        paths[-1].write_bytes(data)
    return is_split_set("tiny", [path.name for path in paths], paths)


def test_whole_set_is_one(tmp_path: Path) -> None:
    assert judge(tmp_path, *THREE)
    assert judge(tmp_path, *split_parts(2))


def test_parts_that_were_cut_by_bytes_are_none(tmp_path: Path) -> None:
    whole = servable()
    assert not judge(tmp_path, whole[:900], whole[900:])
    assert not judge(tmp_path, whole)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (THREE[:2], "2 files of a split GGUF of 3 parts"),
        ([*THREE, THREE[2]], "4 files of a split GGUF of 3 parts"),
        ([THREE[0], THREE[2], THREE[1]], "part 3 of 3 in the place of part 2: part2.gguf"),
        ([THREE[1], THREE[0], THREE[2]], "part 2 of 3 in the place of part 1: part1.gguf"),
        ([THREE[0], THREE[1], THREE[1]], "part 2 of 3 in the place of part 3"),
        ([split_parts(2)[0], THREE[1]], "2 files of a split GGUF of 3 parts"),
        ([servable(), servable()], "a GGUF of its own among the parts: part1.gguf"),
        ([split_parts(2)[0], servable()], "a GGUF of its own among the parts: part2.gguf"),
    ],
)
def test_other_lists_are_refused_by_name(tmp_path: Path, parts: list[bytes], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        judge(tmp_path, *parts)
    assert (caught.value.code, caught.value.subject) == ("model.kind", "model tiny")
    assert words in caught.value.found


def test_tensors_that_are_missing_are_counted(tmp_path: Path) -> None:
    first, second = split_parts(2)
    other = split_parts(3)[1].replace(b"split.count\x02\0\0\0\x03", b"split.count\x02\0\0\0\x02")
    assert len(other) < len(second)
    with pytest.raises(UsageError, match="tensors in all parts, where the first counts 12"):
        judge(tmp_path, first, other)
