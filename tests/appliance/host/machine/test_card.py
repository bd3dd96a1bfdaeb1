"""A card is strict JSON of one schema: a written card can be parsed again, and nothing else is accepted as one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from appliance.host.machine.card import card_value, parse_card
from signing.errors import UsageError
from tests.appliance.sim_card import CARD, check_card, is_card


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_card_is_read_back_as_it_was_written() -> None:
    assert parse_card(encode(card_value(CARD)), "card.json") == CARD


def test_schema_is_valid_and_accepts_every_card() -> None:
    empty = replace(CARD, gpus=(), disks=(), unseen=(), cpu=replace(CARD.cpu, variants=(), quota_millicores=1500))
    for card in (CARD, empty):
        check_card(card_value(card))


def changed(path: str, new: object) -> dict[str, Any]:
    value = json.loads(encode(card_value(CARD)))
    at = value
    *parents, last = path.split(".")
    for name in parents:
        at = at[int(name)] if name.isdecimal() else at[name]
    if new is None and last not in at:
        raise AssertionError(path)
    at[last] = new
    return dict(value)


@pytest.mark.parametrize(
    ("path", "new", "named"),
    [
        ("format", 2, "format 2"),
        ("memory", None, "card.memory"),
        ("memory.ram_bytes", "much", "card.memory.ram_bytes"),
        ("memory.ram_bytes", -1, "card.memory.ram_bytes"),
        ("memory.ram_bytes", True, "card.memory.ram_bytes"),
        ("memory.surprise", 1, "surprise"),
        ("gpus.0.memory_bytes", "big", "card.gpus[0].memory_bytes"),
        ("cpu.flags", "avx2", "card.cpu.flags"),
        ("cpu.variants.0.is_fit", 1, "card.cpu.variants[0].is_fit"),
    ],
)
def test_field_that_breaks_the_schema_is_refused_and_its_path_is_named(path: str, new: object, named: str) -> None:
    value = changed(path, new)
    assert not is_card(value) or path == "format"
    with pytest.raises(UsageError) as caught:
        parse_card(encode(value), "card.json")
    assert named in f"{caught.value.expected} {caught.value.found}"


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"null", b'{"format":1}', b"\xff", b'{"format":1,"format":1}'])
def test_bytes_that_are_no_card_are_refused(data: bytes) -> None:
    with pytest.raises(UsageError):
        parse_card(data, "card.json")
