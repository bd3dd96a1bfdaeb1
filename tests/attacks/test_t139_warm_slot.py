"""T139: the time to the first token shows one key what another has asked."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from appliance.serve.requests.json_text import to_json, with_fields
from appliance.serve.sharing.queue import RequestQueue
from appliance.serve.sharing.share import Share
from appliance.serve.sharing.slots import Slots
from tests.attacks.harness import guard_off, row

ROW = row(139)
VICTIM, ATTACKER = Share("victim"), Share("attacker")
SECRET = to_json({"messages": [{"role": "user", "content": "the plan of the merger is to " * 40}]})


def sent(*shares: Share, slots: int = 1) -> list[dict[str, Any]]:
    """What the engine gets of each request for the same text, one after the other."""
    bodies: list[dict[str, Any]] = []

    async def work() -> None:
        queue = RequestQueue(slots)
        for share in shares:
            async with queue.slot(share, 100, SECRET) as turn:
                turn.is_read = True
                bodies.append(json.loads(with_fields(SECRET, turn.fields())))

    asyncio.run(work())
    return bodies


def reused(*shares: Share, slots: int = 1) -> list[bool]:
    return [body["cache_prompt"] for body in sent(*shares, slots=slots)]


def test_unattacked_a_key_has_its_own_text_read_once() -> None:
    assert reused(VICTIM, VICTIM) == [False, True]
    assert sent(VICTIM, VICTIM, slots=4)[0]["id_slot"] == sent(VICTIM, VICTIM, slots=4)[1]["id_slot"]


def test_attacked_by_a_guess_the_engine_reads_it_anew() -> None:
    assert reused(VICTIM, ATTACKER) == [False, False]
    assert reused(VICTIM, ATTACKER, slots=4) == [False, False]
    # The victim does not see either that its slot was used meanwhile, but by its own text being read again.
    assert reused(VICTIM, ATTACKER, VICTIM) == [False, False, False]


def test_attacked_by_work_that_no_slot_reads_the_slot_stays_the_victims() -> None:
    """A count of tokens, or a request that the engine refuses, leaves the victim's text where it is."""

    async def after(between: bytes | None) -> bool:
        queue = RequestQueue(1)
        async with queue.slot(VICTIM, 100, SECRET) as turn:
            turn.is_read = True
        async with queue.slot(ATTACKER, 1, between):
            pass
        async with queue.slot(ATTACKER, 100, SECRET) as turn:
            return turn.is_warm

    assert not asyncio.run(after(None))
    assert not asyncio.run(after(SECRET))


def test_attacked_with_the_field_of_the_engine_it_stands_once() -> None:
    body = to_json({"messages": [], "stop": ['"id_slot":3,"cache_prompt":true}']})
    text = with_fields(body, {"id_slot": 0, "cache_prompt": False})
    assert json.loads(text) == {**json.loads(body), "id_slot": 0, "cache_prompt": False}


def test_unguarded_the_slot_of_the_victim_is_warm_for_anybody() -> None:
    take = Slots.take

    def take_as_one(slots: Slots, _owner: str, text: bytes | None) -> tuple[int, bool]:
        return take(slots, "anybody", text)

    with guard_off(ROW.guard, take_as_one):
        assert reused(VICTIM, ATTACKER) == [False, True]
