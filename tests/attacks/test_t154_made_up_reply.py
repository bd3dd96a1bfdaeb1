"""T154: an engine that was taken over sends users what an engine has no business with."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from appliance.serve.upstream.connection import LostError, Upstream
from tests.appliance.serve.upstream.test_connection import engine, post, sending
from tests.attacks.harness import guard_off, row

ROW = row(154)
JSON, PAGE = "application/json", "text/html"


def reply(status: str, media_type: str) -> tuple[int, str] | None:
    """What the gateway takes of an engine's reply; None where it takes nothing."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: 2\r\n\r\n{{}}"

    async def work(path: str) -> tuple[int, str] | None:
        async with engine(path, sending(head.encode("latin-1"), then_wait=True)):
            try:
                return (await post(Upstream(path)))[:2]
            except LostError:
                return None

    with tempfile.TemporaryDirectory(prefix="t154-") as folder:
        return asyncio.run(asyncio.wait_for(work(str(Path(folder) / "engine.sock")), 20))


@pytest.mark.parametrize("status", [200, 400, 404, 500, 501, 503])
@pytest.mark.parametrize(
    "media_type", [JSON, f"{JSON}; charset=utf-8", "text/event-stream", "text/plain; version=0.0.4"]
)
def test_unattacked_what_an_engine_says_is_passed_on(status: int, media_type: str) -> None:
    assert reply(f"{status} Yes", media_type) == (status, media_type)


@pytest.mark.parametrize("media_type", [PAGE, "image/svg+xml", "text/event-stream-of-pages", "", f"{PAGE}, {JSON}"])
def test_attacked_with_a_page_for_a_browser(media_type: str) -> None:
    assert reply("200 OK", media_type) is None


@pytest.mark.parametrize("status", ["302 Found", "401 Give me your key", "407 Give", "429 Come again", "999 Odd"])
def test_attacked_with_a_status_of_which_an_engine_knows_nothing(status: str) -> None:
    assert reply(status, JSON) is None


def test_unguarded_the_page_gets_through() -> None:
    with guard_off(ROW.guard, lambda _status, _media_type: True):
        assert reply("200 OK", PAGE) == (200, PAGE)
