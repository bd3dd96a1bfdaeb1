"""T98: signed contents state format 1, and hold a part that programs of format 1 do not know."""

from __future__ import annotations

from typing import Any

import pytest

from tests.attacks.harness import Stick, guard_off, refused, row

ROW = row(98)
Change = Any


def state_of_two(contents: dict[str, Any]) -> None:
    contents["state"] = {"reads": [1, 2], "writes": 2}


def site_that_may_add(contents: dict[str, Any]) -> None:
    contents["site"] = {"kinds": ["adapter"]}


def reranker(contents: dict[str, Any]) -> None:
    contents["models"][0]["task"] = "rerank"


PARTS = [state_of_two, site_that_may_add, reranker]


def test_unattacked_part_is_read_where_the_format_is_stated(stick: Stick) -> None:
    def change(contents: dict[str, Any]) -> None:
        site_that_may_add(contents)
        contents.update(format=2, min_reader=2)

    stick.forge(change)
    found = stick.verify().value.contents.site
    assert found is not None
    assert found.kinds == ("adapter",)


@pytest.mark.parametrize("part", PARTS)
def test_attacked_by_a_part_under_an_older_format(stick: Stick, part: Change) -> None:
    stick.forge(part)
    refused(ROW, stick.verify, "contents.refused", "contents.json")
    assert stick.command().code == 4


@pytest.mark.parametrize("fields", [{"format": 2}, {"min_reader": 2}, {"format": 2, "min_reader": 2}])
def test_attacked_by_a_format_that_nothing_needs(stick: Stick, fields: dict[str, int]) -> None:
    stick.forge(lambda contents: contents.update(fields))
    refused(ROW, stick.verify, "contents.refused", "contents.json")


def test_unguarded_the_part_would_be_read(stick: Stick) -> None:
    stick.forge(reranker)
    with guard_off(ROW.guard, lambda *_: None):
        assert stick.verify().value.contents.models[0].purpose == "rerank"
