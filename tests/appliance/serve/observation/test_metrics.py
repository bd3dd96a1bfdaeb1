"""The figures for Prometheus: each request counts once, and streams count their tokens as whole answers do."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from appliance.host.engine.state import RESTARTING, SERVING, STARTING, STOPPED, EngineState
from appliance.serve.gateway.messages import EngineEvent
from appliance.serve.observation.metrics import STATES, EngineFigures, Metrics
from appliance.serve.upstream.token_usage import TokenUsage
from tests.appliance.serve.gateway.site import Site, eventually, opened, question

Figures = dict[str, float]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with (
        tempfile.TemporaryDirectory(prefix="gateway-") as folder,
        opened(Path(folder), {"toy": 2, "narrow": 1, "embeds": 1}) as made,
    ):
        yield made


def parse(text: str) -> Figures:
    """Every sample as `name{label=value,…}`, parsed as Prometheus does; each must stand below its type."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.type != "unknown", family
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name.removeprefix('appliance_')}{{{labels}}}"] = sample.value
    return found


def read(site: Site) -> Figures:
    return parse(site.call("GET", "/metrics", key=None)[2].decode())


def changes(site: Site, before: Figures, *, names: tuple[str, ...] = ("requests_total", "tokens_total")) -> Figures:
    """What was added since, of the counters of models with these words in their names."""
    now = read(site)
    of_models = {name: value for name, value in now.items() if "{account=" not in name}
    grown = {name: value - before.get(name, 0) for name, value in of_models.items()}
    return {name: value for name, value in grown.items() if value and any(part in name for part in names)}


def requests(status: int, model: str = "toy", route: str = "/v1/chat/completions") -> str:
    return f"requests_total{{model={model},route={route},status={status}}}"


PROMPT, COMPLETION = "prompt_tokens_total{model=toy}", "completion_tokens_total{model=toy}"
CACHED = "cached_prompt_tokens_total{model=toy}"


@pytest.mark.parametrize("is_stream", [False, True])
def test_answer_counts_once_with_its_tokens(site: Site, is_stream: bool) -> None:
    before = read(site)
    assert site.ask("hello", stream=is_stream)[0] == 200
    assert changes(site, before) == {requests(200): 1, PROMPT: 3, COMPLETION: 5, CACHED: 1}
    assert changes(site, before, names=("time_per_output_token_seconds_sum",)) == {
        "time_per_output_token_seconds_sum{model=toy}": pytest.approx(0.02)
    }
    first = changes(site, before, names=("time_to_first_token_seconds_count",))
    assert first == ({"time_to_first_token_seconds_count{model=toy}": 1} if is_stream else {})


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}])
def test_stream_passes_as_the_engine_sends_it(site: Site, options: dict) -> None:
    body = site.ask("ab", stream=True, **options)[2]
    events = [json.loads(event.removeprefix(b"data: ")) for event in body.split(b"\n\n")[:-2]]
    assert [event["choices"][0]["delta"].get("content") for event in events[:3]] == ["b", "a", None]
    assert [event.get("usage") is not None for event in events] == [False] * 3 + [True] * len(options)
    assert "timings" in events[-1]


def test_stream_that_its_user_leaves_is_499_only_and_its_first_token_came_early(site: Site) -> None:
    before = read(site)
    began = time.monotonic()
    connection = site.begin("slow 200")
    answer = connection.getresponse()
    assert answer.read(20)
    first_s = time.monotonic() - began
    events = 0
    while events < 12:
        events += answer.readline().startswith(b"data: ")
    connection.close()
    assert eventually(lambda: changes(site, before, names=("requests_total",)) == {requests(499): 1})
    assert site.ask("x")[0] == 200
    seen = changes(site, before)
    assert {name: value for name, value in seen.items() if "requests" in name} == {requests(499): 1, requests(200): 1}
    # About one for each event; the other request has 5.
    assert seen[COMPLETION] > 5 + 5
    [took] = changes(site, before, names=("time_to_first_token_seconds_sum",)).values()
    assert took <= first_s < 200 * 0.05  # what the whole answer takes


def test_request_that_is_left_before_its_answer_is_499_only(site: Site) -> None:
    before = read(site)
    connection = site.begin("hang")
    assert eventually(lambda: read(site)["slots_taken{model=toy}"] == 1)
    connection.close()
    assert eventually(lambda: changes(site, before) == {requests(499): 1})


def test_request_in_the_queue_counts_when_it_leaves_and_one_that_is_sent_away_at_once(site: Site) -> None:
    before = read(site)
    asked = [site.begin("hang", "narrow") for _ in range(9)]
    try:
        assert eventually(lambda: read(site)["waiting{model=narrow}"] == 8)
        assert read(site)["slots_taken{model=narrow}"] == 1
        assert site.ask("x", "narrow")[0] == 429
        assert changes(site, before) == {requests(429, "narrow"): 1}
    finally:
        for connection in asked:
            connection.close()
    assert eventually(lambda: changes(site, before) == {requests(429, "narrow"): 1, requests(499, "narrow"): 9})


def test_error_of_the_engine_counts_with_its_own_status(site: Site) -> None:
    before = read(site)
    assert site.ask("fail", stream=True)[0] == 400
    assert changes(site, before) == {requests(400): 1}


def test_embeddings_count_the_tokens_of_their_texts(site: Site) -> None:
    before = read(site)
    site.call("POST", "/v1/embeddings", {"model": "embeds", "input": "x"})
    seen = changes(site, before)
    assert seen == {requests(200, "embeds", "/v1/embeddings"): 1, "prompt_tokens_total{model=embeds}": 3}


def test_refused_requests_count_by_model_and_an_unknown_model_is_no_label(site: Site) -> None:
    before = read(site)
    assert site.call("POST", "/v1/embeddings", {"model": "toy", "input": "x"})[0] == 400
    assert site.ask("x", "nothing-of-ours")[0] == 404
    assert site.ask("x", key="late")[0] == 401
    assert changes(site, before) == {requests(400, "toy", "/v1/embeddings"): 1}
    assert changes(site, before, names=("refused_keys",)) == {"refused_keys_total{}": 1}
    assert "nothing-of-ours" not in str(read(site))


def test_engine_that_dies_in_a_stream_counts_as_503_and_one_that_is_stopped_too(tmp_path: Path) -> None:
    with opened(tmp_path, {"toy": 1, "narrow": 1}) as site:
        assert site.call("POST", "/v1/chat/completions", question("die late", stream=True))[0] == 200
        assert changes(site, {}) == {requests(503): 1, COMPLETION: 1}
        up = "engine_up{isolation=netns,level=E2,model=narrow}"
        assert read(site)[up] == 1
        site.process.send(EngineEvent("narrow", EngineState(STOPPED, "x")))
        assert eventually(lambda: read(site).get(up) != 1)
        assert site.ask("x", "narrow")[0] == 503
        assert changes(site, {}, names=("requests",))[requests(503, "narrow")] == 1


def test_refusals_count_by_the_code_of_their_error(site: Site) -> None:
    before = read(site)
    assert site.ask("x", key="late")[0] == 401
    assert site.ask("x", "nothing-of-ours")[0] == 404
    assert site.call("POST", "/v1/chat/completions", {"model": "toy", "secret-field": 1})[0] == 400
    assert site.call("GET", "/secret-path")[0] == 404
    assert site.ask("die", "narrow")[0] == 503
    codes = ("invalid_api_key", "model_not_found", "unknown_field", "route_not_found", "engine_lost")
    assert changes(site, before, names=("refusals",)) == {f"refusals_total{{code={code}}}": 1 for code in codes}
    assert "secret" not in str(read(site))


def test_memory_and_descriptors_of_the_gateway_are_shown(site: Site) -> None:
    seen = read(site)
    assert seen["gateway_process_resident_memory_bytes{}"] > 1 << 20
    assert seen["gateway_process_open_fds{}"] > 3


@pytest.mark.parametrize(
    ("state", "incident"), [(SERVING, 0), (STARTING, 0), (RESTARTING, 0), (STOPPED, 0), (STOPPED, 1), ("loading", 0)]
)
def test_state_of_an_engine_has_one_sample_that_is_1_and_an_incident_another(state: str, incident: int) -> None:
    metrics = Metrics(lambda: [EngineFigures("toy", "E2", "netns", False, 2, 0, 0, state, bool(incident))])
    seen = parse(metrics.format().decode())
    shown = {name: value for name, value in seen.items() if name.startswith("engine_state")}
    assert [name for name, value in shown.items() if value] == [f"engine_state{{model=toy,state={state}}}"]
    assert set(shown) >= {f"engine_state{{model=toy,state={name}}}" for name in STATES}
    assert seen["incident{model=toy}"] == incident


def test_use_of_the_kv_cache_is_the_sum_of_the_slots() -> None:
    metrics = Metrics(lambda: [EngineFigures("toy", "E2", "netns", True, 2, 0, 0, cached={0: 10, 1: 5}, context=512)])
    seen = parse(metrics.format().decode())
    assert seen["kv_cache_tokens{model=toy}"] == 15
    assert seen["kv_cache_capacity_tokens{model=toy}"] == 1024


@pytest.mark.parametrize("is_stream", [False, True])
def test_kv_cache_holds_what_the_last_answer_of_a_slot_took_until_its_engine_ends(
    tmp_path: Path, is_stream: bool
) -> None:
    held = "kv_cache_tokens{model=toy}"
    with opened(tmp_path, {"toy": 1}) as site:
        assert (read(site)[held], read(site)["kv_cache_capacity_tokens{model=toy}"]) == (0, 512)
        for _ in range(3):
            assert site.ask("hello", stream=is_stream)[0] == 200
        assert read(site)[held] == 3 + 5
        site.process.send(EngineEvent("toy", EngineState(STOPPED, "x")))
        assert eventually(lambda: read(site)[held] == 0)


def test_two_gateways_in_one_process_share_no_figure() -> None:
    engine = EngineFigures("toy", "E2", "netns", True, 4, 2, 1)
    one, two = Metrics(lambda: [engine]), Metrics(list)
    one.count_request("toy", "/v1/completions", 200)
    one.count_tokens("toy", TokenUsage(1, 2, 0.5))
    other = parse(two.format().decode())
    assert {name: value for name, value in other.items() if "process" not in name} == {"refused_keys_total{}": 0}
    seen = parse(one.format().decode())
    assert seen[requests(200, "toy", "/v1/completions")] == 1
    assert (seen["slots{model=toy}"], seen["slots_taken{model=toy}"], seen["waiting{model=toy}"]) == (4, 2, 1)
    assert not any("created" in name for name in seen)
