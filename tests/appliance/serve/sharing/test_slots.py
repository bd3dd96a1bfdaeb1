"""Which slot a piece gets: the one that holds its beginning, and never what another owner left as its own."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as some

from appliance.serve.sharing.queue import RequestQueue
from appliance.serve.sharing.share import Share
from appliance.serve.sharing.slots import BLOCK_BYTES, MAX_BYTES, Slots, block_hashes

LONG = b"".join(b"line %d of a long talk\n" % at for at in range(100))


def use(slots: Slots, owner: str, text: bytes) -> tuple[int, bool]:
    found = slots.take(owner, text)
    slots.give_back(found[0], is_read=True)
    return found


def test_talk_goes_on_in_the_slot_that_holds_it() -> None:
    slots = Slots(4)
    talks = [b"%d: " % at + LONG for at in range(4)]
    places = [use(slots, "me", talk)[0] for talk in talks]
    assert sorted(places) == [0, 1, 2, 3]
    for at in (2, 0, 3, 1):
        assert use(slots, "me", talks[at] + b"and on") == (places[at], True)


def test_slot_of_another_owner_is_not_warm_even_for_the_same_text() -> None:
    slots = Slots(1)
    assert use(slots, "me", LONG) == (0, False)
    assert use(slots, "me", LONG) == (0, True)
    assert use(slots, "other", LONG) == (0, False)
    # And after that, nothing of the first owner is left.
    assert use(slots, "me", LONG) == (0, False)


def test_text_that_no_slot_holds_gets_the_one_that_was_free_for_the_longest() -> None:
    slots = Slots(3)
    assert [use(slots, "me", text * 500)[0] for text in (b"a", b"b", b"c", b"d", b"e")] == [0, 1, 2, 0, 1]


def test_slot_that_is_taken_is_nobodys_choice() -> None:
    slots = Slots(2)
    number, _ = slots.take("me", LONG)
    assert slots.take("me", LONG) == (1 - number, False)
    assert slots.free == 0


def test_engine_that_was_started_again_holds_nothing() -> None:
    slots = Slots(1)
    use(slots, "me", LONG)
    slots.forget()
    assert use(slots, "me", LONG) == (0, False)


def test_slot_is_nobodys_after_a_piece_that_the_engine_did_not_read() -> None:
    slots = Slots(1)
    use(slots, "me", LONG)
    slots.give_back(slots.take("other", LONG)[0], is_read=False)
    assert use(slots, "other", LONG) == (0, False)
    slots.give_back(slots.take("other", LONG)[0], is_read=False)
    assert use(slots, "other", LONG) == (0, False)


def test_piece_without_a_text_changes_nothing_of_what_a_slot_holds() -> None:
    slots = Slots(1)
    use(slots, "me", LONG)
    slots.give_back(slots.take("other", None)[0], is_read=True)
    assert use(slots, "me", LONG) == (0, True)


def test_queue_gives_the_slot_to_the_engine() -> None:
    async def work() -> None:
        queue = RequestQueue(2)
        async with queue.slot(Share("me"), 1, LONG) as first, queue.slot(Share("me"), 1, LONG) as second:
            first.is_read = second.is_read = True
            assert {first.slot, second.slot} == {0, 1}
            assert first.fields() == {"id_slot": first.slot, "cache_prompt": False}
        async with queue.slot(Share("me"), 1, LONG) as again:
            again.is_read = True
            assert again.fields() == {"id_slot": again.slot, "cache_prompt": True}
        queue.forget()
        async with queue.slot(Share("me"), 1, LONG) as turn:
            assert not turn.is_warm

    asyncio.run(work())


@given(some.binary(max_size=4 * BLOCK_BYTES), some.binary(max_size=BLOCK_BYTES), some.binary(max_size=BLOCK_BYTES))
def test_hashes_agree_as_far_as_whole_blocks_do(common: bytes, first: bytes, second: bytes) -> None:
    one, other = block_hashes(common + first), block_hashes(common + second)
    whole = len(common) // BLOCK_BYTES
    assert one[:whole] == other[:whole]
    assert len(one) == len(common + first) // BLOCK_BYTES
    for at in range(min(len(one), len(other))):
        until = (at + 1) * BLOCK_BYTES
        assert (one[at] == other[at]) == ((common + first)[:until] == (common + second)[:until])


def test_no_more_of_a_text_is_compared_than_stated() -> None:
    assert len(block_hashes(b"x" * (MAX_BYTES + 5 * BLOCK_BYTES))) == MAX_BYTES // BLOCK_BYTES
