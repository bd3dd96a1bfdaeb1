"""The shipped engine behind the gateway: a prefix is reused within a key alone, and who leaves frees a slot."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.host.engine.engine_command import EngineSpec
from appliance.host.runtime.unpacked import of_wheel
from appliance.serve.upstream.answer import read_whole
from appliance.serve.upstream.connection import Upstream
from tests.appliance.real_engine import describe_model
from tests.appliance.serve.gateway.site import Site, eventually, opened
from tests.appliance.shipped import shipped_model, shipped_runtime

pytestmark = pytest.mark.ci
NO_END = {"0": -100, "1": -100, "2": -100}
"""Tokens by which the model would end an answer."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    unpacked = of_wheel(shipped_runtime().path, tmp_path_factory.mktemp("runtime"))
    model = shipped_model()[1]
    has_avx2 = {"avx2", "fma", "f16c", "bmi2"} <= set(Path("/proc/cpuinfo").read_text().split())
    runtime = unpacked.folder_with("haswell" if has_avx2 else "x64")

    def spec(_folder: Path, name: str, slots: int) -> EngineSpec:
        return EngineSpec(name, describe_model(model), model, runtime, 1024, slots, 1)

    with (
        tempfile.TemporaryDirectory(prefix="gateway-") as folder,
        opened(Path(folder), {"narrow": 2}, spec=spec) as made,
    ):
        yield made


def cached(site: Site, key: str, **options: object) -> int:
    """How many tokens of the same long text the engine did not read again."""
    text = f"{sorted(options)} " + "The quick brown fox jumps over the lazy dog. " * 8
    status, _, data = site.ask(text, "narrow", **{"key": key, "max_tokens": 1, **options})
    assert status == 200, data
    return int(json.loads(data)["usage"]["prompt_tokens_details"]["cached_tokens"])


def figure(site: Site, name: str) -> float:
    async def ask() -> bytes:
        async with Upstream(str(site.sockets / "narrow.sock")).request("/metrics") as reply:
            return (await read_whole(reply)).body

    found = re.search(rf"^llamacpp:{name} (.*)$", asyncio.run(ask()).decode(), re.MULTILINE)
    assert found is not None
    return float(found[1])


@pytest.mark.parametrize("more", [{}, {"logprobs": True}], ids=["gathered", "in one part"])
def test_prefix_is_reused_within_a_key_and_never_across_keys(site: Site, more: dict[str, Any]) -> None:
    cached(site, "all", **more)
    whole = cached(site, "all", **more)
    # A slot of its own may hold the beginning that the template writes into every chat, and nothing of this text.
    foreign = cached(site, "narrow", **more)
    assert foreign < whole - 50
    assert cached(site, "narrow", **more) == whole


def test_who_leaves_a_whole_answer_frees_its_slot_while_another_is_answered(site: Site) -> None:
    options: dict[str, Any] = {"logit_bias": NO_END, "temperature": 0}
    stream = site.begin("Tell a story.", "narrow", stream=True, max_tokens=900, **options)
    assert b"data:" in stream.getresponse().read1(4096)
    whole = site.begin("Tell another story.", "narrow", max_tokens=900, **options)
    assert eventually(lambda: figure(site, "requests_processing") == 2, 60)
    steps = figure(site, "n_decode_total")
    whole.close()
    assert eventually(lambda: figure(site, "requests_processing") == 1, 60)
    # In steps of the engine, for times depend on the machine: it would have gone on for hundreds.
    assert figure(site, "n_decode_total") - steps < 100
    stream.close()
    assert eventually(lambda: figure(site, "requests_processing") == 0, 60)
    assert site.gauge("slots_taken", "narrow") == 0


@pytest.mark.parametrize("times", [3, 4], ids=["odd", "even"])  # of two slots, one of them ends at the other key's
@pytest.mark.parametrize("attempt", ["counted", "refused"])
def test_counting_tokens_and_a_refused_chat_open_no_slot_of_another_key(site: Site, attempt: str, times: int) -> None:
    text = f"{attempt} {times}: the plan of the bank is secret. " * 8
    assert site.ask(text, "narrow", max_tokens=1)[0] == 200
    for _ in range(times):
        if attempt == "counted":
            assert site.call("POST", "/tokenize", {"model": "narrow", "content": "x"}, "narrow")[0] == 200
        else:
            assert site.ask("hello " * 1200, "narrow", key="narrow")[0] == 400
    status, _, data = site.ask(text, "narrow", key="narrow", max_tokens=1)
    usage = json.loads(data)["usage"]
    assert status == 200
    assert usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"] // 2
