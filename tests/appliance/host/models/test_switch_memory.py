"""The new release's engines start beside the old ones exactly where both fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from appliance.host.machine.card import Card, Memory
from appliance.host.models.fit import ModelWorkload
from appliance.host.models.model_head import head_of_file
from appliance.host.models.switch_memory import BESIDE, FIRST, WINDOW, judge_switch
from bundles.gguf.memory import RESERVE_BYTES, Workload
from tests.appliance.sim_card import CARD
from tests.sim.gguf_models import Shape, write_model

SHAPE = Shape("llama", layers=2, width=64, heads=4, kv_heads=2, ff=128, vocab=256, context=256)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelWorkload:
    path: Path = tmp_path_factory.mktemp("model") / "m.gguf"
    write_model(path, SHAPE)
    return ModelWorkload("m", head_of_file(path, "m").header, Workload(256, 2))


def card(budget: int, limit: int | None = None) -> Card:
    return replace(CARD, memory=Memory(budget + RESERVE_BYTES, 0, 0, limit))


def test_room_for_both_to_the_byte_is_beside_and_one_byte_less_is_a_window(model: ModelWorkload) -> None:
    need = model.need.total
    found = judge_switch([model], [model], card(2 * need))
    assert (found.way, found.now, found.after, found.during) == (BESIDE, need, need, 2 * need)
    found = judge_switch([model], [model], card(2 * need - 1))
    assert (found.way, found.during) == (WINDOW, need)


def test_first_release_waits_for_nobody(model: ModelWorkload) -> None:
    found = judge_switch([], [model], card(model.need.total))
    assert (found.way, found.now, found.during) == (FIRST, 0, model.need.total)


def test_memory_of_serving_engines_in_the_same_control_group_is_not_counted_twice(model: ModelWorkload) -> None:
    assert judge_switch([model], [model], card(2 * model.need.total, limit=1)).way == BESIDE
    assert judge_switch([], [model], card(2 * model.need.total, limit=1)).budget == 0
