"""Which of the models that share memory are loaded, and who waits for one that is not.

Owns the choice of what is loaded and unloaded, and the waiting. The gateway sets marks
(`appliance.host.engine.load_mark`); what starts engines obeys, and reports each state.

Rules:
- a model is unloaded only while no request uses it or waits in its queue;
- the loaded models take no more memory than was planned. One that would take more waits, until another has gone;
- room is made by the model that was unused for the longest time, and by none that has just been loaded. Else requests
  for two models in turn would make the host load, and do nothing else;
- nobody waits without bound: a request then gets 503 with the time after which another try makes sense.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from appliance.host.engine.load_mark import FOR_EVER, is_marked, remove_mark, set_mark
from appliance.host.engine.state import SERVING, STARTING, STOPPED, UNLOADED
from appliance.serve.listening.replies import loading, no_room, switching
from appliance.serve.requests.refusal import Refusal

WAIT_S = 60.0
"""How long a request waits for its model."""
STAY_S = 15.0
"""How long a model stays after it was loaded, whatever else needs its room."""
LEAVE_S = 60.0
"""How long an engine may take to end. One that is still there then is used again."""
WAITING_PER_SLOT = 8
_FIRST_GUESS_S = 10.0
_POLL_S = 0.25
_TICK_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Stay:
    """The right of one request to use a loaded model, until `end`.

    Args:
        on_end: called once.
    """

    on_end: Callable[[], None] | None = None

    def end(self) -> None:
        """Give the right back. Safe to call twice."""
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end()


@dataclass(slots=True, eq=False)
class Residence:
    """One model that is loaded on demand.

    Args:
        name: of the model.
        file: its mark.
        keep_alive: seconds without a request after which it is unloaded, or `FOR_EVER`.
        memory: bytes that it takes while it is loaded.
        max_waiting: requests that may wait for it.
        residents: all models of this gateway that share the memory.
    """

    name: str
    file: Path
    keep_alive: int
    memory: int
    max_waiting: int
    residents: Residents
    status: str = STARTING
    users: int = 0
    waiting: int = 0
    _waiting_of: Counter[str] = field(default_factory=Counter)
    _is_leaving: bool = False
    _loaded_at: float = 0.0
    _used_at: float = 0.0
    _asked_at: float = 0.0
    _left_at: float = 0.0
    _usual_s: float = field(default=_FIRST_GUESS_S)

    @property
    def is_ready(self) -> bool:
        """Whether requests may be sent to its engine."""
        return self.status == SERVING and not self._is_leaving

    @property
    def takes_memory(self) -> bool:
        """Whether its engine runs, or may run at any moment."""
        return self.status != STOPPED and (self.status != UNLOADED or is_marked(self.file))

    @property
    def is_leaving(self) -> bool:
        """Whether its room comes free without anybody's help."""
        return self._is_leaving

    def change_state(self, status: str) -> None:
        """Take a new state of its engine."""
        now = self.residents.clock()
        if status == SERVING and self.status != SERVING:
            self._loaded_at = self._used_at = now
            if self._asked_at:
                self._usual_s += (now - self._asked_at - self._usual_s) / 2
            self._asked_at = 0.0
        self.status = status
        if status in (UNLOADED, STOPPED):
            self._is_leaving = False
        elif status == SERVING and not self._is_leaving:
            self._put_mark(is_there=True)  # it was loaded by an install, or for the gateway before this one
        self.residents.notify()

    async def enter(self, owner: str = "") -> Stay:
        """Wait until the model is loaded, and hold it.

        Args:
            owner: whose request it is: one owner gets a half of the places, so that its flood refuses its own requests.

        Returns:
            The hold. A model that was stopped for good is held, too: its refusal is for the caller to make.

        Raises:
            Refusal: 503; it is not loaded in time, there is no room for it, too many wait for it, or the gateway ends.
        """
        clock = self.residents.clock
        until, has_room = clock() + WAIT_S, True
        if not self.is_ready and self._is_full_for(owner):
            raise loading(self.name, self._retry_after_s())
        self.waiting += 1
        self._waiting_of[owner] += 1
        try:
            while not self.is_ready and self.status != STOPPED:
                has_room = self.residents.load(self)
                left = until - clock()
                if self.residents.is_ending():
                    raise switching()
                if left <= 0:
                    raise self._refusal(has_room=has_room)
                await self.residents.wait(min(left, _POLL_S))
        finally:
            self.waiting -= 1
            self._waiting_of[owner] -= 1
            self._waiting_of += Counter()  # without those that are 0
        self.users += 1
        return Stay(self._leave)

    def unload(self) -> None:
        """Let its engine end. Only for a model that `is_idle`."""
        self._is_leaving, self._left_at = True, self.residents.clock()
        _log.info("the model %s is unloaded", self.name)
        self._put_mark(is_there=False)

    def stay_if_it_cannot_leave(self) -> None:
        """Use an engine again that does not end."""
        if self._is_leaving and self.residents.clock() - self._left_at >= LEAVE_S:
            self._is_leaving = False
            self._loaded_at = self.residents.clock()
            self.change_state(self.status)

    def load(self) -> None:
        """Let its engine start."""
        self._asked_at = self.residents.clock()
        _log.info("the model %s is loaded", self.name)
        self._put_mark(is_there=True)

    def idle_s(self) -> float:
        """Seconds for which nobody has used it, negative while it may not be unloaded."""
        now = self.residents.clock()
        if not self.is_ready or self.users or self.waiting or now - self._loaded_at < STAY_S:
            return -1.0
        return now - self._used_at

    def _is_full_for(self, owner: str) -> bool:
        return self.waiting >= self.max_waiting or self._waiting_of[owner] >= max(1, self.max_waiting // 2)

    def _leave(self) -> None:
        self.users -= 1
        self._used_at = self.residents.clock()
        self.residents.notify()

    def _refusal(self, *, has_room: bool) -> Refusal:
        return (loading if has_room else no_room)(self.name, self._retry_after_s())

    def _retry_after_s(self) -> int:
        return max(1, min(120, round(self._usual_s)))

    def _put_mark(self, *, is_there: bool) -> None:
        # A full disk must not end the gateway: the next request or the next tick tries again.
        with contextlib.suppress(OSError):
            (set_mark if is_there else remove_mark)(self.file)


class Residents:
    """The models of one gateway that share memory.

    Args:
        room: bytes that they may take together.
        clock: seconds, monotonic.
        is_ending: whether the gateway ends soon.
    """

    def __init__(
        self, room: int, clock: Callable[[], float] = time.monotonic, is_ending: Callable[[], bool] = lambda: False
    ) -> None:
        self.room, self.clock, self.is_ending = room, clock, is_ending
        self._all: list[Residence] = []
        self._changed = asyncio.Event()

    def add(self, name: str, file: Path, keep_alive: int, memory: int, slots: int) -> Residence:
        """Add a model; see `Residence`."""
        one = Residence(name, file, keep_alive, memory, slots * WAITING_PER_SLOT, self)
        self._all.append(one)
        return one

    def load(self, wanted: Residence) -> bool:
        """Load a model where there is room, else let others make room for it.

        Returns:
            Whether it is being loaded, or will be when others have gone.
        """
        if wanted.status != UNLOADED or is_marked(wanted.file):
            return True  # it is on its way, in one direction or the other
        taken = sum(one.memory for one in self._all if one.takes_memory)
        missing = taken + wanted.memory - self.room
        if missing <= 0:
            wanted.load()
            return True
        missing -= sum(one.memory for one in self._all if one.is_leaving)
        leaving = []
        for one in sorted(self._all, key=Residence.idle_s, reverse=True):
            if missing <= 0 or one.idle_s() < 0:
                break
            leaving.append(one)
            missing -= one.memory
        if missing > 0:
            return False
        for one in leaving:
            one.unload()
        return True

    def tick(self) -> None:
        """Unload what nobody has used for long, and load what is to stay loaded."""
        for one in self._all:
            one.stay_if_it_cannot_leave()
            if one.keep_alive == FOR_EVER:
                taken = sum(other.memory for other in self._all if other.takes_memory)
                if one.status == UNLOADED and not is_marked(one.file) and taken + one.memory <= self.room:
                    one.load()
            elif one.idle_s() >= one.keep_alive:
                one.unload()

    async def watch(self) -> None:
        """Call `tick` again and again, until cancelled."""
        while True:
            self.tick()
            await asyncio.sleep(_TICK_S)

    def notify(self) -> None:
        """Wake those that wait."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait(self, timeout_s: float) -> None:
        """Wait for a change, at most for a time: what only needs time to pass is looked at again."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout_s)
