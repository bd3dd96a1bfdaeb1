"""A user who leaves before an answer begins ends what the request waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Receive

from appliance.serve.listening import leaving
from appliance.serve.listening.leaving import while_there


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "SOON_S", 0.01)


def receiving(left: asyncio.Event) -> Receive:
    async def receive() -> dict[str, Any]:
        await left.wait()
        return {"type": "http.disconnect"}

    return receive


async def after(event: asyncio.Event) -> str:
    await event.wait()
    return "admitted"


def test_user_who_stays_gets_what_the_request_waited_for() -> None:
    async def work() -> None:
        ready, left = asyncio.Event(), asyncio.Event()
        waiting = asyncio.create_task(while_there(asyncio.create_task(after(ready)), receiving(left)))
        await asyncio.sleep(0.05)
        ready.set()
        assert await waiting == "admitted"

    asyncio.run(work())


def test_user_who_leaves_ends_it() -> None:
    async def work() -> None:
        left = asyncio.Event()
        task = asyncio.create_task(after(asyncio.Event()))
        waiting = asyncio.create_task(while_there(task, receiving(left)))
        await asyncio.sleep(0.05)
        assert not task.done()
        left.set()
        with pytest.raises(HTTPException) as gone:
            await waiting
        assert (gone.value.status_code, task.cancelled()) == (leaving.USER_LEFT, True)

    asyncio.run(work())


def test_end_of_the_waiting_is_the_end_of_the_work() -> None:
    async def work() -> None:
        task = asyncio.create_task(after(asyncio.Event()))
        waiting = asyncio.create_task(while_there(task, receiving(asyncio.Event())))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert task.cancelled()

    asyncio.run(work())
