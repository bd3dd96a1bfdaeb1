"""T149: requests for several models in turn, so that a model goes while it answers, or the memory overflows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance.host.engine.load_mark import is_marked
from appliance.host.engine.state import SERVING, UNLOADED
from appliance.serve.requests.refusal import Refusal
from appliance.serve.sharing import residence
from appliance.serve.sharing.residence import STAY_S, Residence, Residents
from tests.attacks.harness import guard_off, row

ROW = row(149)


class Memory:
    """Two models, memory for one, and a clock of its own; engines obey at once."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.residents = Residents(1, lambda: self.now)
        self.used, self.other = (
            self.residents.add(name, folder / f"{name}.load", 60, 1, 1) for name in ("used", "other")
        )
        for one in self.both:
            one.change_state(UNLOADED)

    @property
    def both(self) -> tuple[Residence, Residence]:
        return self.used, self.other

    def obey(self) -> None:
        for one in self.both:
            one.change_state(SERVING if is_marked(one.file) else UNLOADED)

    async def ask(self, model: Residence) -> None:
        """Ask for a model until it is refused; engines obey and time passes meanwhile."""
        asking = asyncio.create_task(model.enter())
        while not asking.done():
            await asyncio.sleep(0.001)
            self.now += 5
            self.obey()
        await asking


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Memory:
    monkeypatch.setattr(residence, "_POLL_S", 0.001)
    return Memory(tmp_path)


def attack(memory: Memory) -> None:
    """Let a user hold one model, and ask for the other."""
    memory.residents.load(memory.used)
    memory.obey()
    memory.now += STAY_S

    async def work() -> None:
        await memory.used.enter()
        await memory.ask(memory.other)

    asyncio.run(asyncio.wait_for(work(), 10))


def test_unattacked_model_that_nobody_uses_makes_room(memory: Memory) -> None:
    memory.residents.load(memory.used)
    memory.obey()
    memory.now += STAY_S
    asyncio.run(asyncio.wait_for(memory.ask(memory.other), 10))
    assert (memory.used.status, memory.other.status) == (UNLOADED, SERVING)


def test_attacked_while_it_answers_the_model_stays_and_the_other_is_refused(memory: Memory) -> None:
    with pytest.raises(Refusal) as caught:
        attack(memory)
    assert (caught.value.status, caught.value.code) == (503, "no_room")
    assert (memory.used.status, memory.other.status) == (SERVING, UNLOADED)


def test_unguarded_the_model_goes_while_it_answers(memory: Memory) -> None:
    with guard_off(ROW.guard, lambda _one: 1.0):
        attack(memory)
    assert (memory.used.status, memory.used.users) == (UNLOADED, 1)
