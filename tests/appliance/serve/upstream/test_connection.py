"""A request to an engine is bounded in size and time, ends with its connection, and no half reply passes as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.serve.upstream import connection
from appliance.serve.upstream.connection import LostError, Upstream

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


@pytest.fixture
def path() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="upstream-") as folder:
        yield str(Path(folder) / "engine.sock")


@asynccontextmanager
async def engine(path: str, script: Script) -> AsyncIterator[Upstream]:
    """An engine that follows a script for each connection."""
    served: list[asyncio.Task[None]] = []

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(script(reader, writer))
        # A task that is cancelled before its first step runs no `finally`.
        task.add_done_callback(lambda _task: writer.close())
        served.append(task)

    async with await asyncio.start_unix_server(serve, path):
        yield Upstream(path)
        # asyncio drops, without closing it, a connection that it has accepted just before its server is closed.
        await asyncio.sleep(0.01)
        for task in served:
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)


def sending(*parts: bytes, then_wait: bool = False) -> Script:
    """Read the request, send the parts one after the other, and close, or wait until the other side does."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)
        if then_wait:
            await reader.read()

    return script


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    return head + await reader.readexactly(length)


async def post(one: Upstream, body: bytes = b"{}") -> tuple[int, str, list[bytes]]:
    async with one.request("/v1/completions", body) as reply:
        return reply.status, reply.media_type, [block async for block in reply.blocks]


def test_reply_with_a_length_comes_as_it_was_sent(path: str) -> None:
    async def work() -> None:
        whole = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 6\r\nX: y\r\n\r\nabc"
        async with engine(path, sending(whole, b"def", then_wait=True)) as one:
            assert await post(one) == (400, "application/json", [b"abc", b"def"])

    run(work())


def test_engine_gets_the_whole_body_and_five_headers(path: str) -> None:
    got: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await read_request(reader))
        writer.write(HEAD + b"0\r\n\r\n")
        await writer.drain()

    async def work() -> None:
        async with engine(path, script) as one:
            assert await post(one, b"x" * 3_000_000) == (200, "text/event-stream", [])

    run(work())
    lines, body = got[0].split(b"\r\n\r\n")
    assert body == b"x" * 3_000_000
    assert lines.split(b"\r\n") == [
        b"POST /v1/completions HTTP/1.1",
        *(b"host: engine", b"content-type: application/json", b"content-length: 3000000"),
        *(b"accept-encoding: identity", b"connection: close"),
    ]


def test_chunks_are_passed_on_as_they_come_and_those_of_one_read_together(path: str) -> None:
    async def work() -> None:
        parts = (HEAD + b"1\r\na\r\n", b"1\r\nb\r\n1\r\nc\r\n2\r\nd", b"e\r\n0\r\n\r\n")
        async with engine(path, sending(*parts, then_wait=True)) as one:
            assert (await post(one))[2] == [b"a", b"bcd", b"e"]

    run(work())


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([], id="closed without a word"),
        pytest.param([b"HTTP/1.1 200 OK\r\ncontent-le"], id="closed in the head"),
        pytest.param([b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc"], id="closed before its length"),
        pytest.param([HEAD + b"5\r\nabcde\r\n"], id="closed before the last chunk"),
        pytest.param([b"HTTP/1.1 200 OK\r\n\r\nabc"], id="no length and no chunks"),
        pytest.param([b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nabc"], id="two lengths"),
        pytest.param([b"HTTP/1.1 100 Continue\r\n\r\n", HEAD + b"0\r\n\r\n"], id="informational"),
        pytest.param([b"HTTP/1.1 200 OK\r\nx: " + b"x" * 200_000], id="endless header"),
        pytest.param([HEAD + b"1;" + b"x" * 200_000], id="endless head of a chunk"),
        pytest.param([HEAD + b"0\r\nx: " + b"x" * 200_000], id="endless trailer"),
        pytest.param([HEAD + b"-1\r\nabc\r\n"], id="chunk without a length"),
        pytest.param([b"\x00\x01\x02"], id="no HTTP"),
    ],
)
def test_reply_that_is_not_whole_or_not_http_is_lost(path: str, parts: list[bytes]) -> None:
    async def work() -> None:
        async with engine(path, sending(*parts)) as one:
            with pytest.raises(LostError):
                await post(one)

    run(work())


def test_engine_that_is_not_there_is_lost(path: str) -> None:
    async def work() -> None:
        with pytest.raises(LostError):
            await post(Upstream(path))

    run(work())


@pytest.mark.parametrize("parts", [[], [HEAD + b"1\r\na\r\n"]], ids=["before its reply", "in the middle"])
def test_engine_that_falls_silent_is_lost_after_the_timeout(
    path: str, parts: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "WRITE_S", 0.1)
    monkeypatch.setattr(connection, "READ_S", 0.2)

    async def work() -> None:
        async with engine(path, sending(*parts, then_wait=True)) as one:
            with pytest.raises(LostError, match="nothing for"):
                await post(one)

    run(work())


def test_time_that_the_user_takes_is_not_the_engines_silence(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "WRITE_S", 0.1)
    monkeypatch.setattr(connection, "READ_S", 0.2)

    async def work() -> None:
        async with (
            engine(path, sending(HEAD + b"1\r\na\r\n", b"0\r\n\r\n", then_wait=True)) as one,
            one.request("/", b"{}") as reply,
        ):
            blocks = []
            async for block in reply.blocks:
                blocks.append(block)
                await asyncio.sleep(0.6)
            assert blocks == [b"a"]

    run(work())


def test_engine_that_does_not_read_the_request_is_lost_after_the_timeout(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "WRITE_S", 0.2)
    done = asyncio.Event()

    async def script(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await done.wait()

    async def work() -> None:
        async with engine(path, script) as one:
            with pytest.raises(LostError):
                await post(one, b"x" * 8_000_000)
            done.set()

    run(work())


@pytest.mark.parametrize("parts", [[], [HEAD + b"1\r\na\r\n"]], ids=["before its reply", "in the middle"])
def test_engine_sees_at_once_that_a_request_was_cancelled(path: str, parts: list[bytes]) -> None:
    async def work() -> None:
        is_closed, has_sent = asyncio.Event(), asyncio.Event()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await sending(*parts)(reader, writer)
            has_sent.set()
            await reader.read()
            is_closed.set()

        async with engine(path, script) as one:
            request = asyncio.create_task(post(one))
            await has_sent.wait()
            request.cancel()
            await asyncio.wait_for(is_closed.wait(), 5)
            with pytest.raises(asyncio.CancelledError):
                await request

    run(work())


@pytest.mark.parametrize("steps", range(8))
def test_request_that_is_cancelled_at_any_step_leaves_no_socket_open(path: str, steps: int) -> None:
    async def work() -> None:
        async with engine(path, sending(then_wait=True)) as one:
            request = asyncio.create_task(post(one))
            for _ in range(steps):
                await asyncio.sleep(0)
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()  # what earlier tests left is not this test's
    run(work())
    gc.collect()  # a socket that is still open warns here, and the warning fails this test


def fill_backlog(path: str) -> tuple[socket.socket, list[socket.socket]]:
    """A socket that listens and accepts nothing, and the connections that fill its queue."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(0)
    waiting = []
    for _ in range(10):
        one = socket.socket(socket.AF_UNIX)
        one.setblocking(False)
        waiting.append(one)
        try:
            one.connect(path)
        except BlockingIOError:
            return listener, waiting
    raise AssertionError("the queue never fills")


def test_engine_with_a_full_queue_of_connections_is_waited_for(path: str) -> None:
    async def work() -> None:
        listener, waiting = fill_backlog(path)
        request = asyncio.create_task(post(Upstream(path)))
        await asyncio.sleep(0.1)
        with listener:
            listener.setblocking(False)
            for one in waiting:
                one.close()
                with contextlib.suppress(BlockingIOError):
                    listener.accept()[0].close()
            peer, _ = await asyncio.get_running_loop().sock_accept(listener)
            with peer:
                peer.sendall(HEAD + b"0\r\n\r\n")
                assert (await request)[0] == 200

    run(work())


def test_engine_whose_queue_of_connections_stays_full_is_lost(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_S", 0.1)

    async def work() -> None:
        listener, waiting = fill_backlog(path)
        with pytest.raises(LostError):
            await post(Upstream(path))
        for one in (listener, *waiting):
            one.close()

    run(work())
