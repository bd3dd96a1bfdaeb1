"""T140: a request on which an engine produces nothing, or that keeps the engine from everybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from appliance.host.engine.end_request import end_path, request_end
from appliance.host.engine.process import Engine
from appliance.serve.sharing import watchdog
from appliance.serve.sharing.watchdog import SilentError, Watchdog, WatchedPiece
from tests.appliance.serve.sharing.test_watchdog import KIND, Watched, run
from tests.attacks.harness import guard_off, row
from tests.sim.engines import started_engine

ROW = row(140)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(watchdog, "PROBE_S", 0.3)
    monkeypatch.setattr(watchdog, "YIELD_S", 0.2)
    with started_engine() as started:
        yield started


def test_unattacked_long_work_is_left_alone(engine: Engine) -> None:
    async def work(watched: Watched) -> None:
        assert b"done" in await watched.ask("work 0.8")
        assert (watched.silent, watched.ended) == ([], 0)

    run(engine, work)


def test_attacked_by_a_request_without_an_end_it_is_ended(engine: Engine) -> None:
    async def work(watched: Watched) -> None:
        with pytest.raises(SilentError):
            await watched.ask("hang")
        assert (watched.silent, watched.ended) == ([KIND], 0)

    run(engine, work)


def test_attacked_by_a_request_that_holds_the_engine_that_is_ended(engine: Engine) -> None:
    async def work(watched: Watched) -> None:
        with pytest.raises(SilentError):
            await watched.ask("block")
        await asyncio.sleep(watchdog.YIELD_S + 0.2)
        assert watched.ended == 1

    run(engine, work)


def test_attacked_where_nobody_listens_no_other_process_is_ended(engine: Engine) -> None:
    end_path(engine.socket).unlink(missing_ok=True)
    assert not request_end(engine.socket)
    assert engine.child.poll() is None


def test_unguarded_the_request_has_no_end(engine: Engine) -> None:
    def forgive(_dog: Watchdog, piece: WatchedPiece, _decoded: float | None, now: float) -> None:
        piece.checked_at = now

    async def work(watched: Watched) -> None:
        asking = asyncio.create_task(watched.ask("hang"))
        await asyncio.wait({asking}, timeout=1.5)
        assert not asking.done()
        asking.cancel()

    with guard_off(ROW.guard, forgive):
        run(engine, work)
