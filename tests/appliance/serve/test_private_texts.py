"""No text of a user is in any log: a canary goes through every refusal and through engines that die (threat T78)."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from appliance.serve.gateway.log_lines import PlainFormatter
from tests.appliance.serve.gateway.site import Site, eventually, opened, question
from tests.sim.engines import notes

CANARY = "canary-4f1e"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def refused() -> Iterator[tuple[str, Any]]:
    """A request for each way in which one is refused, with the canary wherever a user may write."""
    chat, completions, embeddings = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
    yield from ((path, f"{{{CANARY}".encode()) for path in (chat, completions, embeddings))
    yield chat, [CANARY]
    yield chat, f'{{"model": "{CANARY}'.encode() + b"\xff"
    yield chat, question(CANARY, CANARY)
    yield chat, question(CANARY, **{CANARY: CANARY})
    yield chat, question(CANARY, store=CANARY)
    yield chat, question(CANARY, temperature=CANARY)
    yield chat, question(CANARY, max_tokens=1 << 63)
    yield chat, question(CANARY * 10_000)
    yield chat, {"model": "toy", "messages": [{"role": CANARY, "content": CANARY}]}
    yield chat, {"model": "toy", "messages": [{"role": "user", "content": [{"type": CANARY, CANARY: CANARY}]}]}
    call = {"id": CANARY, "function": {"name": "f", "arguments": f'{{"{CANARY}'}}
    yield chat, {"model": "toy", "messages": [{"role": "assistant", "tool_calls": [call]}]}
    yield chat, question(CANARY, tools=[TOOL])
    yield chat, question(CANARY, tools=[{**TOOL, "type": CANARY}])
    yield chat, question(CANARY, tool_choice={"type": "function", "function": {"name": CANARY}}, tools=[TOOL])
    for schema in (
        {"pattern": CANARY},
        {"$ref": CANARY},
        {"type": CANARY},
        {"properties": {CANARY: {"minLength": -1}}},
    ):
        yield (
            chat,
            question(CANARY, response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}),
        )
    yield chat, question(CANARY, chat_template_kwargs={CANARY: CANARY})
    yield chat, question("fail", user=CANARY)
    yield completions, {"model": "toy", "prompt": CANARY, "suffix": CANARY}
    yield embeddings, {"model": "toy", "input": CANARY}
    yield embeddings, {"model": "embeds", "content": CANARY}


def logs(site: Site) -> dict[str, str]:
    """All that gateway and supervisor have written."""
    return {
        path.name: path.read_text("utf-8", "replace")
        for path in site.sockets.rglob("*")
        if path.is_file() and path.suffix in (".log", ".json", ".1", ".db", ".jsonl") and path.name != "requests.jsonl"
    }


def test_no_text_of_a_user_is_in_any_log() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="gateway-") as folder,
        opened(Path(folder), {"toy": 2, "tools": 1, "late": 1, "loud": 1, "embeds": 1}) as site,
    ):
        for path, body in refused():
            status = site.call("POST", path, body)[0]
            assert 400 <= status < 500, (path, body)
        assert site.call("POST", "/v1/chat/completions", question(CANARY), f"ak-{CANARY}")[0] == 401
        assert site.call("GET", f"/v1/{CANARY}?{CANARY}", content_encoding=CANARY)[0] == 404
        assert site.call("POST", "/v1/chat/completions", question(CANARY), content_encoding=CANARY)[0] == 415
        assert CANARY in str(notes(site.sockets)) or site.ask(CANARY)[0] == 200
        assert site.ask(f"die loudly {CANARY}", "loud")[0] == 503
        assert site.ask(f"die loudly {CANARY}", "tools", tools=[TOOL], stream=True)[0] == 503
        assert site.ask("die late", "late", stream=True, user=CANARY)[0] == 200
        assert eventually(lambda: "an assertion failed" in logs(site)["loud.log"])
        found = logs(site)
        assert {"gateway.log", "toy.log", "loud.log"} <= found.keys()
        assert [name for name, text in found.items() if CANARY in text] == []
        assert CANARY not in site.call("GET", "/metrics", key=None)[2].decode()
        assert CANARY not in site.call("GET", "/readyz", key=None)[2].decode()


def formatted(record: logging.LogRecord) -> str:
    return PlainFormatter("%(levelname)s %(message)s").format(record)


def test_fault_of_the_gateway_is_logged_by_its_type_and_place_alone() -> None:
    try:
        try:
            json.loads(CANARY)
        except ValueError as error:
            raise KeyError(CANARY) from error
    except KeyError as error:
        info = (type(error), error, error.__traceback__)
    text = formatted(
        logging.LogRecord("uvicorn.error", logging.ERROR, "", 0, "Exception in ASGI application\n", (), info)
    )
    assert CANARY not in text
    assert "KeyError at test_private_texts.py:" in text
    assert "JSONDecodeError at " in text


def test_task_that_failed_is_logged_without_what_it_failed_on() -> None:
    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    handler.setFormatter(PlainFormatter("%(message)s"))
    logging.getLogger("asyncio").addHandler(handler)

    async def fail() -> None:
        raise ValueError(CANARY)

    async def run() -> None:
        asyncio.get_running_loop().call_exception_handler({"message": f"Exception in callback f('{CANARY}')"})
        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        del task

    try:
        asyncio.run(run())
    finally:
        logging.getLogger("asyncio").removeHandler(handler)
    assert CANARY not in shown.getvalue()
    assert "Exception in callback f" in shown.getvalue()
