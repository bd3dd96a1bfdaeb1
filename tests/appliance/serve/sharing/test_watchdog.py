"""The watchdog: it ends what an engine does not work on, leaves alone what it does, and has a silent engine ended."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.host.engine.end_request import EndListener, end_path, request_end
from appliance.host.engine.process import Engine
from appliance.serve.sharing import watchdog
from appliance.serve.sharing.watchdog import SilentError, SilentWork, Watchdog, WatchedPiece
from appliance.serve.upstream.answer import read_whole
from appliance.serve.upstream.connection import LostError, Upstream
from tests.sim.engines import started_engine

KIND = SilentWork("/v1/chat/completions", "body up to 1 KiB, grammar none")
SILENCE_S = 0.15


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(watchdog, "PROBE_S", 0.3)
    monkeypatch.setattr(watchdog, "YIELD_S", 0.2)
    with started_engine() as started:
        yield started


class Watched:
    """An engine with its watchdog, and what that reported."""

    def __init__(self, engine: Engine) -> None:
        self.upstream = Upstream(str(engine.socket))
        self.silent: list[SilentWork] = []
        self.ended = 0
        self.dog = Watchdog(self.upstream, SILENCE_S, self.silent.append, self._end)

    def _end(self) -> None:
        self.ended += 1

    async def ask(self, said: str, *, stream: bool = False) -> bytes:
        body = {"model": "toy", "messages": [{"role": "user", "content": said}], "stream": stream}
        with self.dog.watch(KIND) as piece:
            async with self.upstream.request("/v1/chat/completions", json.dumps(body).encode(), piece) as reply:
                return (await read_whole(reply)).body


def run(engine: Engine, work: Callable[[Watched], AsyncIterator[None]] | Callable[[Watched], object]) -> None:
    asyncio.run(asyncio.wait_for(work(Watched(engine)), 30))  # type: ignore[arg-type]


def test_piece_that_the_engine_does_not_work_on_is_ended_and_the_engine_left_alone(engine: Engine) -> None:
    async def work(watched: Watched) -> None:
        with pytest.raises(SilentError):
            await watched.ask("hang")
        assert (watched.silent, watched.ended) == ([KIND], 0)
        assert b"cba" in await watched.ask("abc")

    run(engine, work)


def test_answer_that_takes_long_is_left_alone_while_the_engine_works(engine: Engine) -> None:
    async def work(watched: Watched) -> None:
        assert b"done" in await watched.ask("work 1.2")
        assert b"data:" in await watched.ask("slow 12", stream=True)
        assert (watched.silent, watched.ended) == ([], 0)

    run(engine, work)


def test_engine_whose_working_thread_does_not_answer_is_ended(engine: Engine) -> None:
    async def work(watched: Watched) -> None:
        with pytest.raises(SilentError):
            await watched.ask("block")
        await asyncio.sleep(watchdog.YIELD_S + 0.2)
        assert (watched.silent, watched.ended) == ([KIND], 1)

    run(engine, work)


@pytest.mark.parametrize(("said", "ended"), [("block", 1), ("hang", 0)])
def test_engine_that_hangs_is_found_where_every_user_leaves_early(engine: Engine, said: str, ended: int) -> None:
    async def work(watched: Watched) -> None:
        for _ in range(8):
            with pytest.raises((asyncio.TimeoutError, SilentError)):
                await asyncio.wait_for(watched.ask(said), SILENCE_S / 3)
        await asyncio.sleep(watchdog.PROBE_S + watchdog.YIELD_S + 0.3)
        assert min(1, watched.ended) == ended

    run(engine, work)


def test_engine_that_yields_in_time_is_not_ended(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "YIELD_S", 20.0)

    async def work(watched: Watched) -> None:
        asked: list[float] = []

        async def read_steps(_dog: Watchdog) -> float:
            asked.append(0.0)
            if len(asked) == 1:
                await asyncio.sleep(60)
            return 1.0

        monkeypatch.setattr(Watchdog, "_read_steps", read_steps)
        with pytest.raises(SilentError):
            await watched.ask("hang")
        await asyncio.sleep(0.05)
        assert (len(asked), watched.ended) == (2, 0)

    run(engine, work)


def test_engine_that_ends_is_no_silent_one(engine: Engine) -> None:
    async def work(watched: Watched) -> None:
        with pytest.raises(LostError) as caught:
            await watched.ask("die")
        assert not isinstance(caught.value, SilentError)
        assert (watched.silent, watched.ended) == ([], 0)

    run(engine, work)


def test_comment_by_which_a_stream_stays_open_is_no_work() -> None:
    clock = iter([0.0, 5.0, 9.0])
    piece = WatchedPiece(KIND, lambda: next(clock))
    for block in (b":\n\n", b":\n\n:\n\n"):
        piece.receives(block)
        piece.waits()
    assert piece.checked_at == 0.0
    piece.receives(b"data: {}\n\n")
    piece.waits()
    assert piece.checked_at == 5.0
    piece.receives(b":\n\ndata: {}\n\n")
    piece.waits()
    assert piece.checked_at == 9.0


def test_while_a_user_is_slow_to_read_the_engine_is_not_asked(engine: Engine) -> None:
    async def work(watched: Watched) -> None:
        with watched.dog.watch(KIND) as piece:
            piece.receives(b"data: {}\n\n")
            await asyncio.sleep(SILENCE_S * 4)
            assert not piece.is_silent

    run(engine, work)


@contextmanager
def listening(folder: Path, ends: list[int]) -> Iterator[Path]:
    path = folder / "toy.sock"
    listener = EndListener(path, lambda: ends.append(1))
    try:
        yield path
    finally:
        listener.close()


def test_connection_alone_ends_an_engine_and_nothing_of_it_is_read(tmp_path: Path) -> None:
    ends: list[int] = []
    with listening(tmp_path, ends) as path:
        assert request_end(path)
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(end_path(path)))
            with pytest.raises(OSError, match=r"Broken pipe|reset"):
                for _ in range(1000):
                    other.sendall(b"x" * 4096)
        # The connection is closed a moment before the engine is ended.
        until = time.monotonic() + 60
        while len(ends) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert ends == [1, 1]
    assert not request_end(path)
