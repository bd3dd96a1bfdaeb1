"""A plan never accepts what does not fit, and always names three alternatives."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.builder.models.serving_memory import serving_bytes
from appliance.host.machine.card import Card, Gpu, Memory
from appliance.host.models.fit import ALTERNATIVES, GPU_RESERVE_BYTES, Fit, ModelWorkload, budget_bytes, fit
from bundles.gguf.header import GgufHeader, read_header
from bundles.gguf.memory import RESERVE_BYTES, Workload, estimate
from tests.appliance.sim_card import CARD, GIB
from tests.sim.gguf_models import F16, Shape, write_model
from tests.sim.odd_models import servable

BIG = Shape("llama", layers=32, width=4096, heads=32, kv_heads=8, head_dim=128, ff=14336, vocab=128256, kind=F16)
"""A model of 8 000 million weights; the file is sparse."""


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> GgufHeader:
    path = tmp_path_factory.mktemp("fit") / "big.gguf"
    size = write_model(path, BIG)
    with path.open("rb") as file:
        return read_header(file, size, path.name)


def host(ram_gib: float, limit: int | None = None) -> Card:
    return replace(CARD, memory=Memory(int(ram_gib * GIB), GIB, 0, limit))


def ask(header: GgufHeader, card: Card, workload: Workload, copies: int = 1) -> Fit:
    models = [ModelWorkload(f"m{number}", header, workload) for number in range(copies)]
    return fit(models, card, [one.need for one in models])


def test_part_of_the_memory_is_never_planned_with() -> None:
    assert budget_bytes(host(16)) == 16 * GIB - RESERVE_BYTES
    assert budget_bytes(host(16, limit=4 * GIB)) == 4 * GIB - RESERVE_BYTES
    assert budget_bytes(host(0.5)) == 0


@pytest.mark.parametrize("copies", [1, 3])
def test_what_a_bundle_declares_is_the_least_memory_that_a_host_accepts(big: GgufHeader, copies: int) -> None:
    workload = Workload(8192, 4)
    declared = serving_bytes([(big, workload)] * copies)
    assert ask(big, host(declared / GIB), workload, copies).fits
    assert not ask(big, host((declared - 1) / GIB), workload, copies).fits


def test_models_on_demand_take_turns_so_only_the_largest_counts(big: GgufHeader) -> None:
    small = Workload(1024, 1)
    models = [
        ModelWorkload("always", big, small),
        ModelWorkload("turn", big, Workload(8192, 4), is_on_demand=True),
        ModelWorkload("other turn", big, small, is_on_demand=True),
    ]
    needs = [one.need for one in models]
    least = needs[0].total + needs[1].total + RESERVE_BYTES
    assert fit(models, host(least / GIB), needs).fits
    assert not fit(models, host((least - 1) / GIB), needs).fits
    assert fit(models, host(least / GIB), needs).total == needs[0].total + needs[1].total


def test_what_the_verdict_calls_the_most_fits_and_one_more_does_not(big: GgufHeader) -> None:
    card = host(32)
    answer = ask(big, card, Workload(8192, 4))
    assert answer.fits
    assert answer.alternatives == ()
    assert 4 <= answer.most_slots < 256
    assert estimate(big, Workload(8192, answer.most_slots)).total <= answer.budget
    assert estimate(big, Workload(8192, answer.most_slots + 1)).total > answer.budget
    assert estimate(big, Workload(answer.longest_context, 4)).total <= answer.budget


@pytest.mark.parametrize("ram_gib", [1, 2, 4, 6, 8, 12, 16, 18, 20])
def test_three_alternatives_are_named_and_those_that_fit_come_first(big: GgufHeader, ram_gib: int) -> None:
    answer = ask(big, host(ram_gib), Workload(32768, 8))
    assert not answer.fits
    assert len(answer.alternatives) == ALTERNATIVES
    assert len({one.text for one in answer.alternatives}) == ALTERNATIVES
    fits = [one.fits for one in answer.alternatives]
    assert fits == sorted(fits, reverse=True)
    for one in answer.alternatives:
        assert one.fits == (one.total <= answer.budget)


def test_alternatives_change_as_little_as_makes_it_fit(big: GgufHeader) -> None:
    answer = ask(big, host(20), Workload(8192, 8))
    texts = [one.text for one in answer.alternatives if one.fits]
    slots = next(text for text in texts if "slots" in text)
    count = int(slots.split()[0])
    assert estimate(big, Workload(8192, count)).total <= answer.budget < estimate(big, Workload(8192, count + 1)).total
    assert any("context of" in text for text in texts)


def test_smaller_weights_are_named_where_nothing_else_helps(big: GgufHeader) -> None:
    answer = ask(big, host(12), Workload(8192, 1))
    assert answer.alternatives[0].text == "weights quantised to Q8_0"
    assert answer.most_slots == answer.longest_context == 0


def test_host_that_is_far_too_small_gets_no_alternative_that_fits(big: GgufHeader) -> None:
    answer = ask(big, host(1), Workload(8192, 4))
    assert answer.budget == 0
    assert not any(one.fits for one in answer.alternatives)


def test_models_of_one_bundle_are_served_at_the_same_time(big: GgufHeader) -> None:
    one, two = ask(big, host(30), Workload(2048, 1)), ask(big, host(30), Workload(2048, 1), copies=2)
    assert two.total == 2 * one.total
    assert one.fits
    assert not two.fits


def test_numbers_of_the_runtime_count_instead_of_the_formula(big: GgufHeader) -> None:
    models = [ModelWorkload("m", big, Workload(8192, 4))]
    need = models[0].need
    answer = fit(models, host(32), [replace(need, kv=need.kv + 8 * GIB)])
    assert answer.total == need.total + 8 * GIB
    assert answer.most_slots < ask(big, host(32), Workload(8192, 4)).most_slots


@pytest.mark.parametrize(("gib", "layers"), [(1, 0), (8, 14), (80, 32)])
def test_layers_are_counted_from_the_memory_of_the_graphics_processor(big: GgufHeader, gib: int, layers: int) -> None:
    card = replace(host(32), gpus=(replace(CARD.gpus[0], memory_bytes=gib * GIB + GPU_RESERVE_BYTES),))
    (gpu,) = ask(big, card, Workload(8192, 2)).gpus
    assert gpu.layers == pytest.approx(layers, abs=2)
    assert gpu.of_layers == 32


def test_graphics_processor_of_unseen_memory_gets_no_number_of_layers(big: GgufHeader) -> None:
    card = replace(host(32), gpus=(Gpu("0000:01:00.0", "0x10de", "", "", None, ""),))
    assert ask(big, card, Workload(8192, 2)).gpus[0].layers is None


def test_model_with_a_short_context_is_planned_with_its_own_beside_one_with_a_long_one(tmp_path: Path) -> None:
    data = servable(context=300)
    small = read_header(io.BytesIO(data), len(data), "small")
    write_model(tmp_path / "long.gguf", Shape("llama", 2, 64, 2, 2, 32, 128, 300, context=4096))
    with (tmp_path / "long.gguf").open("rb") as file:
        long = read_header(file, (tmp_path / "long.gguf").stat().st_size, "long")
    models = [ModelWorkload("a", small, Workload(300, 1)), ModelWorkload("b", long, Workload(1024, 1))]
    enough = estimate(small, Workload(300, 1)).total + estimate(long, Workload(4096, 1)).total
    card = host((enough + RESERVE_BYTES) / GIB)
    assert fit(models, card, [one.need for one in models]).longest_context == 4096
