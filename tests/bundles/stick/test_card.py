"""`STICK.json` is a hint: right ones are read, and of others nothing is taken and nothing is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundles.oci.layout import STICK_FILE, Layout
from bundles.stick.card import MAX_CARD_BYTES, StickBundle, StickCard, name_set, read_card, write_card
from signing.digest import sha256
from signing.strictjson import to_file

ONE, TWO = sha256(b"one"), sha256(b"two")
CARD = StickCard(
    name_set([ONE, TWO]),
    2,
    3,
    (StickBundle("toy", "1.0.0", ONE), StickBundle("toy", "1.1.0", TWO)),
    ((((1, 5), (9, 9)), ((1, 2),)), (((1, 2), (6, 8)), ((1, 4),))),
)


def read(folder: Path, data: bytes) -> StickCard | None:
    (folder / STICK_FILE).write_bytes(data)
    return read_card(Layout(folder))


def test_card_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read(tmp_path, write_card(CARD)) == CARD


def test_card_names_every_stick_that_holds_a_blob() -> None:
    assert [CARD.sticks_with(ONE, number) for number in (1, 3, 7, 10)] == [(1, 2), (1,), (2,), ()]
    assert CARD.sticks_with(TWO, 4) == (2,)
    assert CARD.sticks_with(sha256(b"three"), 1) == ()


def test_name_of_a_set_depends_on_its_bundles_alone() -> None:
    assert name_set([ONE, TWO]) == name_set([TWO, ONE]) != name_set([ONE])


def test_too_long_a_placement_is_left_out(tmp_path: Path) -> None:
    runs = tuple((number * 2, number * 2) for number in range(1, 60000))
    long = StickCard(CARD.set, 1, None, CARD.bundles[:1], ((runs,),))
    found = read(tmp_path, write_card(long))
    assert found == StickCard(CARD.set, 1, None, CARD.bundles[:1])


@pytest.mark.parametrize(
    "change",
    [
        {"number": 0},
        {"number": True},
        {"number": 4},
        {"of": 0},
        {"of": "3"},
        {"set": "x"},
        {"set": None},
        {"bundles": []},
        {"bundles": [{"name": "../x", "version": "1", "manifest": ONE}] * 2},
        {"bundles": [{"name": "toy", "version": "1", "manifest": "x"}] * 2},
        {"placement": [[[[1, 2]]]]},
        {"placement": [[[[2, 1]], []]]},
        {"placement": [[[[1, 2], [2, 3]], []]]},
        {"placement": [[[[1, True]], []]]},
        {"placement": [[[[0, 1]], []]]},
        {"placement": {}},
        {"more": 1},
    ],
    ids=repr,
)
def test_other_form_is_no_card(tmp_path: Path, change: dict[str, object]) -> None:
    value = {**json.loads(write_card(CARD)), **change}
    assert read(tmp_path, to_file(value)) is None


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"number":1,"of":1}', b"x" * (MAX_CARD_BYTES + 1)])
def test_other_bytes_are_no_card(tmp_path: Path, data: bytes) -> None:
    assert read(tmp_path, data) is None


def test_no_file_and_a_link_are_no_card(tmp_path: Path) -> None:
    assert read_card(Layout(tmp_path)) is None
    (tmp_path / STICK_FILE).symlink_to("/dev/zero")
    assert read_card(Layout(tmp_path)) is None
