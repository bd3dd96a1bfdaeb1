"""Users who leave while their request is looked at, or waits for a model that is being loaded.

Owns how that is noticed before an answer begins. During an answer it is for the answer itself.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

from starlette.exceptions import HTTPException
from starlette.types import Receive

USER_LEFT = 499
"""Status of a request whose user left; nobody receives it."""
SOON_S = 0.5
"""What is done within this time is not watched: nearly every request is."""
Value = TypeVar("Value")


async def while_there(work: asyncio.Task[Value], receive: Receive) -> Value:
    """Wait for what a request needs, as long as its user is there.

    Args:
        work: is cancelled where the user leaves first.
        receive: of the request, whose body has been read.

    Raises:
        HTTPException: 499; the user has left.
    """
    left: asyncio.Task[None] | None = None
    try:
        await asyncio.wait({work}, timeout=SOON_S)
        if not work.done():
            left = asyncio.create_task(wait_until_left(receive))
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        raise HTTPException(USER_LEFT)
    finally:
        if left is not None:
            left.cancel()
        if not work.done():
            work.cancel()
            await asyncio.wait({work})


async def wait_until_left(receive: Receive) -> None:
    """Wait until the user of a request has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
