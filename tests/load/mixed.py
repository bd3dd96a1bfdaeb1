"""The load itself: users of every kind at the same time, an engine that is killed under them, and the judgement.

What must hold: nobody gets anything but an answer, a refusal that its kind may get, or 429 with `Retry-After`. When an
engine is killed, its users alone get an error, which their clients may try again, and it comes back. The gateway's
memory stays as it was after the first requests. At the end no process holds a descriptor more than before.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from tests.load.site import MODELS, LoadedSite
from tests.load.users import CHAT, Kind, Seen, ask, kinds

USERS = 24
WARM_UP = 1 / 3
"""The part of the time after which memory is compared."""
MAX_GROWTH = 0.05
KILL_EVERY_S = 300.0
"""An engine that ends five times in ten minutes is given up."""
_KILLED, _OTHER = MODELS
_BACK_S, _LEFT_S = 60.0, 60.0


@dataclass
class Load:
    """What a load has shown.

    Args:
        seen: by the users.
        kills: how often an engine was killed, and for how many seconds it was away each time.
        bytes: of the gateway, each with the seconds since the start.
        before, after: descriptors by process.
        faults: what did not hold, beside what users saw.
    """

    seen: Seen = field(default_factory=Seen)
    kills: list[float] = field(default_factory=list)
    bytes: list[tuple[float, int]] = field(default_factory=list)
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def growth(self, duration_s: float) -> float:
        """By what part the gateway's memory has changed since the end of the warm-up."""
        warm = duration_s * WARM_UP
        quarter = (duration_s - warm) / 4
        early = [found for at, found in self.bytes if warm <= at < warm + quarter]
        late = [found for at, found in self.bytes if at >= duration_s - quarter]
        return median(late) / median(early) - 1

    def judge(self, duration_s: float) -> list[str]:
        """All that did not hold."""
        found = [*self.faults, *self.seen.wrong]
        if abs(self.growth(duration_s)) > MAX_GROWTH:
            found.append(f"the gateway's memory changed by {self.growth(duration_s):+.1%}")
        left = {name: (self.before[name], count) for name, count in self.after.items() if count > self.before[name]}
        if left:
            found.append(f"descriptors before and after: {left}")
        return found


def run_load(site: LoadedSite, duration_s: float, show: Callable[[str], None] = lambda _: None) -> Load:
    """Let users of every kind ask for some time, and kill an engine meanwhile.

    Args:
        site: the host.
        duration_s: for how long new requests are sent.
        show: called with a line each minute.
    """
    load = Load()
    asyncio.run(_Mixture(site, duration_s, load, show).run())
    return load


class _Mixture:
    def __init__(self, site: LoadedSite, duration_s: float, load: Load, show: Callable[[str], None]) -> None:
        self._site, self._duration_s, self._load, self._show = site, duration_s, load, show
        self._began = 0.0
        # From just before a kill until the model answers again.
        self._is_away = False
        self._kinds = [(name, kind) for model in MODELS for name, kind in kinds(model).items()]
        self._choices = random.Random(time.time_ns())

    @property
    def _passed(self) -> float:
        return time.monotonic() - self._began

    async def run(self) -> None:
        # Each once, so that everything is loaded and opened that ever is.
        await asyncio.gather(*(ask(self._site.port, kind, self._site.keys) for _, kind in self._kinds))
        await self._await_quiet()
        self._load.before = self._site.descriptors()
        self._began = time.monotonic()
        killing, sampling = asyncio.create_task(self._kill_engines()), asyncio.create_task(self._sample())
        users = [asyncio.create_task(self._be_user()) for _ in range(USERS)]
        await asyncio.gather(*users, killing, sampling)
        await self._await_quiet()
        self._load.after = await self._descriptors_at_rest()

    async def _be_user(self) -> None:
        weights = [kind.weight for _, kind in self._kinds]
        while self._passed < self._duration_s:
            [(name, kind)] = self._choices.choices(self._kinds, weights)
            was_away, ends = self._is_away, len(self._load.kills)
            try:
                outcome, body = await ask(self._site.port, kind, self._site.keys)
            except (OSError, asyncio.IncompleteReadError) as error:
                outcome, body = f"no reply: {type(error).__name__}", b""
            may_be_away = kind.model == _KILLED and (was_away or self._is_away or ends != len(self._load.kills))
            self._load.seen.add(name, kind, outcome, body, may_be_away=may_be_away)
            await asyncio.sleep(self._choices.random() / 10)

    async def _kill_engines(self) -> None:
        next_s = min(self._duration_s / 2, KILL_EVERY_S)
        while next_s < self._duration_s:
            await asyncio.sleep(next_s - self._passed)
            await self._kill_engine()
            next_s += KILL_EVERY_S

    async def _kill_engine(self) -> None:
        site, began = self._site, time.monotonic()
        gateway, other = site.gateway_pid, site.engine_pid(_OTHER)
        body = {"model": _KILLED, "messages": [{"role": "user", "content": "Count."}], "max_tokens": 900}
        endless = {**body, "logit_bias": {"0": -100, "1": -100, "2": -100}, "stream": True}
        cut = Kind(CHAT, endless, key="cut", model=_KILLED, is_stream=True)
        begun = asyncio.Event()
        streaming = asyncio.create_task(ask(site.port, cut, site.keys, begun))
        await asyncio.wait_for(begun.wait(), _BACK_S)
        self._is_away = True
        os.kill(site.engine_pid(_KILLED), signal.SIGKILL)
        outcome, said = await streaming
        if outcome != "broken off: engine_lost":
            self._load.faults.append(f"the stream of a killed engine: {outcome}: {said[-300:]!r}")
        plain = Kind(CHAT, {**body, "max_tokens": 1}, key="cut", model=_KILLED)
        while (await ask(site.port, plain, site.keys))[0] != "200":
            if time.monotonic() - began > _BACK_S:
                self._load.faults.append("a killed engine did not come back")
                return
            await asyncio.sleep(0.2)
        self._load.kills.append(time.monotonic() - began)
        self._is_away = False
        if (site.gateway_pid, site.engine_pid(_OTHER)) != (gateway, other):
            self._load.faults.append("another process ended with the killed engine")

    async def _sample(self) -> None:
        shown = 0
        while self._passed < self._duration_s:
            await asyncio.sleep(0.5)
            self._load.bytes.append((self._passed, self._site.gateway_bytes()))
            if self._passed // 60 > shown:
                shown += 1
                total = sum(self._load.seen.outcomes.values())
                self._show(f"{shown} min, {total} requests, {self._load.bytes[-1][1] / 1e6:.1f} MB")

    async def _await_quiet(self) -> None:
        """Wait until no engine has work for anybody."""
        until = time.monotonic() + _LEFT_S
        figures = Kind("/metrics", key="")
        while time.monotonic() < until:
            _, text = await ask(self._site.port, figures, {})
            busy = [line for line in text.decode().splitlines() if line.startswith("appliance_slots_taken{")]
            if all(float(line.rsplit(" ", 1)[1]) == 0 for line in busy):
                return
            await asyncio.sleep(0.2)
        self._load.faults.append("slots stay taken")

    async def _descriptors_at_rest(self) -> dict[str, int]:
        until = time.monotonic() + _LEFT_S
        while True:
            found = self._site.descriptors()
            if time.monotonic() > until or all(count <= self._load.before[name] for name, count in found.items()):
                return found
            await asyncio.sleep(0.2)
