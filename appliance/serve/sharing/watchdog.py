"""The watchdog of one engine: it ends work for which the engine produces nothing, and a silent engine itself.

Owns the question whether an engine still works. An engine does all its work in one thread. A grammar can hold that for
longer than anybody waits, and no other user is answered meanwhile.

Rules:
- a piece that brought nothing for `silence_s` makes the watchdog ask the engine for its figures. The thread that works
  answers that, also while it reads a long prompt;
- where it has read or written tokens since it was asked before, the piece goes on: a long answer in one part takes its
  time. Else the piece ends, and its connection closes;
- a piece whose user left before anything came hands on how long it has waited. So an engine that hangs is found where
  every user leaves sooner than after `silence_s`;
- an engine that does not answer within `YIELD_S` after that is ended, by what started it, which starts it again;
- a report names the kind of a request: its route and the size of its parts, never its text.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from appliance.serve.upstream.answer import read_whole
from appliance.serve.upstream.connection import LostError, Upstream

PROBE_S = 10.0
"""How long the engine may take to answer: it does so between two steps of its work."""
YIELD_S = 10.0
MAX_UNHEARD_S = 7200.0
"""How long a piece may bring nothing, whatever else the engine works on."""
_DECODED = re.compile(rb"^llamacpp:n_decode_total ([0-9.e+]{1,24})$", re.MULTILINE)


class SilentError(LostError):
    """The engine produced nothing for a piece, and the watchdog has ended that."""


@dataclass(frozen=True, slots=True)
class SilentWork:
    """What is reported of a piece that was ended.

    Args:
        route: of the engine.
        size_class: of its parts, in a few words.
    """

    route: str
    size_class: str


class WatchedPiece:
    """A piece of work, as the watchdog and its connection see it.

    Args:
        kind: what is reported of it.
        now: seconds, monotonic.
    """

    def __init__(self, kind: SilentWork, now: Callable[[], float]) -> None:
        self.kind = kind
        self.is_silent = self.is_heard = False
        self.began = self.checked_at = now()
        self.decoded: float | None = None
        self._now = now
        self._abort: Callable[[], None] | None = None

    def opened(self, abort: Callable[[], None]) -> None:
        """Take what closes the connection."""
        self._abort = abort

    def receives(self, block: bytes) -> None:
        """Take what the engine sent; a comment, by which it only keeps a stream open, does not count."""
        if not (block.startswith(b":") and block.count(b"\n") == block.count(b":\n\n") * 2):
            self.is_heard = True
            # While a user is slow to read, nothing is asked of the engine.
            self.checked_at = math.inf

    def waits(self) -> None:
        """Begin to count again."""
        if self.checked_at == math.inf:
            self.began = self.checked_at = self._now()

    def end(self) -> None:
        """End the piece."""
        self.is_silent = True
        if self._abort is not None:
            self._abort()


class Watchdog:
    """Watches the pieces of one engine.

    Args:
        upstream: the engine.
        silence_s: seconds without anything, after which the engine is asked.
        on_silence: called with each piece that was ended.
        end_engine: called when the engine does not answer.
    """

    def __init__(
        self,
        upstream: Upstream,
        silence_s: float,
        on_silence: Callable[[SilentWork], None],
        end_engine: Callable[[], None],
    ) -> None:
        self._upstream, self._silence_s = upstream, silence_s
        self._on_silence, self._end_engine = on_silence, end_engine
        self._pieces: set[WatchedPiece] = set()
        self._task: asyncio.Task[None] | None = None
        self._unheard_s = 0.0
        self._left_at = -math.inf

    @contextmanager
    def watch(self, kind: SilentWork) -> Iterator[WatchedPiece]:
        """Watch a piece for the length of the block, which sends it to the engine.

        Raises:
            SilentError: the engine produced nothing for it.
        """
        piece = WatchedPiece(kind, asyncio.get_running_loop().time)
        piece.checked_at -= min(self._unheard_s, self._silence_s)
        self._pieces.add(piece)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        try:
            yield piece
        except LostError as error:
            if piece.is_silent:
                raise SilentError(str(error)) from error
            raise
        finally:
            self._pieces.discard(piece)
            self._note_end(piece)

    def _note_end(self, piece: WatchedPiece) -> None:
        now = asyncio.get_running_loop().time()
        # Of pieces that waited at the same time, that time counts once.
        unheard_s = now - max(piece.began, self._left_at)
        self._unheard_s = 0.0 if piece.is_heard or piece.is_silent else self._unheard_s + max(0.0, unheard_s)
        self._left_at = now

    async def _watch(self) -> None:
        now = asyncio.get_running_loop().time
        while self._pieces:
            wait_s = min(piece.checked_at for piece in self._pieces) + self._silence_s - now()
            if wait_s > 0:
                await asyncio.sleep(min(wait_s, self._silence_s))
                continue
            asked_at = now()
            decoded = await self._ask(PROBE_S)
            for piece in [piece for piece in self._pieces if asked_at - piece.checked_at >= self._silence_s]:
                self._judge(piece, decoded, asked_at)
            if decoded is None and await self._ask(YIELD_S) is None:
                self._end_engine()

    def _judge(self, piece: WatchedPiece, decoded: float | None, now: float) -> None:
        has_moved = decoded is not None and decoded != piece.decoded
        self._unheard_s = 0.0 if has_moved else self._unheard_s
        if has_moved and now - piece.began < MAX_UNHEARD_S:
            piece.decoded, piece.checked_at = decoded, now
            return
        self._pieces.discard(piece)
        piece.end()
        self._on_silence(piece.kind)

    async def _ask(self, timeout_s: float) -> float | None:
        """How many steps of work the engine has done; None where it does not answer."""
        asking = asyncio.create_task(self._read_steps())
        try:
            await asyncio.wait({asking}, timeout=timeout_s)
            return asking.result() if asking.done() else None
        except LostError:
            return None
        finally:
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError, LostError):
                await asking

    async def _read_steps(self) -> float:
        async with self._upstream.request("/metrics") as reply:
            answer = await read_whole(reply)
        found = _DECODED.search(answer.body)
        try:
            return float(found[1]) if found is not None else -1.0
        except ValueError:
            return -1.0
