"""Models that share memory: who is loaded, who has to go, and that nobody goes while it is used."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from appliance.host.engine.load_mark import FOR_EVER, is_marked
from appliance.host.engine.state import RESTARTING, SERVING, STARTING, STOPPED, UNLOADED
from appliance.serve.requests.refusal import Refusal
from appliance.serve.sharing import residence
from appliance.serve.sharing.residence import LEAVE_S, STAY_S, Residence, Residents, Stay

GIB = 1 << 30


class House:
    """Models of 1 GiB each, engines that obey when told to, and a clock that nobody waits for."""

    def __init__(self, folder: Path, room: int, keep_alive: dict[str, int]) -> None:
        self.now = 100.0
        self.residents = Residents(room * GIB, lambda: self.now)
        self.models = {name: self.add(folder, name, seconds) for name, seconds in keep_alive.items()}
        for one in self.models.values():
            one.change_state(UNLOADED)

    def add(self, folder: Path, name: str, keep_alive: int) -> Residence:
        return self.residents.add(name, folder / f"{name}.load", keep_alive, GIB, 1)

    def obey(self) -> None:
        """Let every engine be as its mark is."""
        for one in self.models.values():
            is_there = is_marked(one.file)
            if is_there and one.status == UNLOADED:
                one.change_state(STARTING)
                one.change_state(SERVING)
            elif not is_there and one.status == SERVING:
                one.change_state(UNLOADED)

    async def engines(self) -> None:
        """What starts engines: it obeys a little later, again and again; each time, a second passes."""
        while True:
            await asyncio.sleep(0.001)
            self.now += 1
            self.obey()

    @property
    def loaded(self) -> set[str]:
        return {name for name, one in self.models.items() if one.status == SERVING}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residence, "_POLL_S", 0.001)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


async def use(house: House, name: str) -> Stay:
    """Use a model, which engines load meanwhile."""
    engines = asyncio.create_task(house.engines())
    try:
        return await house.models[name].enter()
    finally:
        engines.cancel()


def test_model_that_is_asked_for_is_loaded_and_goes_after_its_keep_alive(tmp_path: Path) -> None:
    async def work() -> None:
        house = House(tmp_path, 2, {"a": 60})
        stay = await use(house, "a")
        assert house.loaded == {"a"}
        house.now += 1000
        house.residents.tick()
        assert is_marked(house.models["a"].file)  # it is used
        stay.end()
        stay.end()
        house.now += 59
        house.residents.tick()
        assert is_marked(house.models["a"].file)
        house.now += 1
        house.residents.tick()
        house.obey()
        assert house.loaded == set()

    run(work())


def test_model_with_a_waiting_request_is_not_unloaded(tmp_path: Path) -> None:
    async def work() -> None:
        house = House(tmp_path, 1, {"a": 60})
        (await use(house, "a")).end()
        house.models["a"].change_state(RESTARTING)
        waiting = asyncio.create_task(house.models["a"].enter())
        await asyncio.sleep(0.01)
        house.now += 55
        house.residents.tick()
        house.models["a"].change_state(SERVING)
        (await waiting).end()
        assert is_marked(house.models["a"].file)

    run(work())


def test_room_is_made_by_the_one_unused_for_longest_and_never_by_one_in_use(tmp_path: Path) -> None:
    async def work() -> None:
        house = House(tmp_path, 2, {"a": 600, "b": FOR_EVER, "c": 600})
        held = await use(house, "a")
        (await use(house, "b")).end()
        house.now += STAY_S
        (await use(house, "c")).end()
        assert house.loaded == {"a", "c"}
        held.end()
        held = await use(house, "c")
        house.now += STAY_S
        (await use(house, "b")).end()
        assert house.loaded == {"b", "c"}
        held.end()

    run(work())


def test_request_gets_503_with_a_time_where_all_are_in_use(tmp_path: Path) -> None:
    async def work() -> None:
        house = House(tmp_path, 1, {"a": 60, "b": 60})
        stay = await use(house, "a")
        with pytest.raises(Refusal) as caught:
            await use(house, "b")
        assert (caught.value.status, caught.value.code) == (503, "no_room")
        assert int((caught.value.headers or {})["retry-after"]) >= 1
        assert house.loaded == {"a"}
        stay.end()

    run(work())


def test_request_gets_503_where_its_model_is_not_loaded_in_time(tmp_path: Path) -> None:
    async def work() -> None:
        house = House(tmp_path, 1, {"a": 60})
        half = residence.WAITING_PER_SLOT // 2
        asked = [asyncio.create_task(house.models["a"].enter(who)) for who in ("ann", "bob") for _ in range(half)]
        await asyncio.sleep(0.01)
        with pytest.raises(Refusal) as full:
            await house.models["a"].enter("eve")
        house.now += residence.WAIT_S
        for one in asked:
            with pytest.raises(Refusal) as late:
                await one
            assert (late.value.status, late.value.code) == (503, "loading")
        assert full.value.code == "loading"
        assert (house.models["a"].waiting, house.models["a"].users) == (0, 0)

    run(work())


def test_one_owner_gets_half_of_the_places_and_another_still_waits(tmp_path: Path) -> None:
    async def work() -> None:
        house = House(tmp_path, 1, {"a": 60})
        half = residence.WAITING_PER_SLOT // 2
        asked = [asyncio.create_task(house.models["a"].enter("flood")) for _ in range(half)]
        await asyncio.sleep(0.01)
        with pytest.raises(Refusal):
            await house.models["a"].enter("flood")
        other = asyncio.create_task(house.models["a"].enter("other"))
        await asyncio.sleep(0.01)
        house.obey()
        assert (await asyncio.wait_for(other, 5)).on_end is not None
        for one in asked:
            (await one).end()
        assert house.models["a"].waiting == 0
        # A place that was left is free again.
        await house.models["a"].enter("flood")

    run(work())


def test_request_for_a_stopped_model_does_not_wait(tmp_path: Path) -> None:
    async def work() -> None:
        house = House(tmp_path, 1, {"a": 60})
        asked = asyncio.create_task(house.models["a"].enter())
        await asyncio.sleep(0.01)
        house.models["a"].change_state(STOPPED)
        (await asked).end()  # the backend refuses it
        assert not house.models["a"].takes_memory

    run(work())


def test_model_that_was_just_loaded_stays_for_a_while(tmp_path: Path) -> None:
    """Requests for two models in turn do not make the host load all the time."""

    async def work() -> None:
        house, loads = House(tmp_path, 1, {"a": 1, "b": 1}), 0
        began = house.now
        for turn in range(8):
            (await use(house, "ab"[turn % 2])).end()
            loads += 1
        assert house.now - began >= (loads - 1) * STAY_S

    run(work())


def test_engine_that_does_not_end_is_used_again(tmp_path: Path) -> None:
    async def work() -> None:
        house = House(tmp_path, 1, {"a": 1})
        (await use(house, "a")).end()
        house.now += STAY_S + 1
        house.residents.tick()
        ready = [house.models["a"].is_ready]
        house.now += LEAVE_S
        house.residents.tick()
        assert [*ready, house.models["a"].is_ready] == [False, True]
        assert is_marked(house.models["a"].file)

    run(work())


def test_model_that_an_install_loaded_is_kept_and_counted(tmp_path: Path) -> None:
    house = House(tmp_path, 1, {"a": 60, "b": FOR_EVER})
    house.models["a"].change_state(SERVING)
    assert is_marked(house.models["a"].file)
    house.residents.tick()
    assert not is_marked(house.models["b"].file)


def test_model_without_a_keep_alive_is_loaded_where_there_is_room(tmp_path: Path) -> None:
    house = House(tmp_path, 1, {"a": FOR_EVER, "b": FOR_EVER})
    house.residents.tick()
    house.obey()
    assert house.loaded == {"a"}


@settings(max_examples=60, deadline=None)
@given(some.lists(some.tuples(some.sampled_from("abcd"), some.integers(0, 40), some.booleans()), max_size=30))
def test_loaded_models_never_take_more_than_the_room_and_none_goes_in_use(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, bool]]
) -> None:
    async def work() -> None:
        house = House(tmp_path_factory.mktemp("house"), 2, {"a": 5, "b": 30, "c": FOR_EVER, "d": 600})
        held: dict[str, Stay] = {}
        for name, seconds, is_kept in steps:
            before = {one for one in held if house.models[one].users}
            if name in held:
                held.pop(name).end()
            elif house.residents.load(house.models[name]):
                house.obey()
                if house.models[name].is_ready:
                    stay = await house.models[name].enter()
                    held[name] = stay
                    if not is_kept:
                        held.pop(name).end()
            house.now += seconds
            house.residents.tick()
            house.obey()
            assert before & held.keys() <= house.loaded
            assert sum(one.takes_memory for one in house.models.values()) <= 2

    run(work())
