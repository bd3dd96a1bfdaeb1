"""The memory that bodies take while they are read and checked (threat T153).

Owns how much there is for all requests together. Rules:
- bytes count as they come, so that a request takes no more than it has sent;
- nobody has more than a half: who sends many large bodies at once leaves room for the others;
- a request that finds no room is refused with 429 and `Retry-After`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from appliance.serve.requests.refusal import Refusal

ROOM_BYTES = 256 << 20
RETRY_AFTER_S = 5


class BodyRoom:
    """Room for the bodies of a gateway.

    Args:
        room: bytes for all of them.
    """

    def __init__(self, room: int = ROOM_BYTES) -> None:
        self._room = room
        self._held: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """Bytes that are taken."""
        return self._held.total()

    @contextmanager
    def hold(self, owner: str) -> Iterator[Callable[[int], None]]:
        """Hold what one request takes, for the length of the block.

        Args:
            owner: the account that has sent it.

        Yields:
            A function that takes more bytes; it raises a refusal where there is no room.
        """
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            is_own = self._held[owner] + count > self._room // 2
            if is_own or self.held + count > self._room:
                raise _no_room(is_own=is_own)
            taken += count
            self._held[owner] += count

        try:
            yield take
        finally:
            self._held[owner] -= taken
            if not self._held[owner]:
                del self._held[owner]


def _no_room(*, is_own: bool) -> Refusal:
    whose = "other requests of this key" if is_own else "other requests"
    message = f"The bodies of {whose} take the memory for bodies. Try again in {RETRY_AFTER_S} s."
    return Refusal(429, "rate_limit_exceeded", message, headers={"retry-after": str(RETRY_AFTER_S)})
