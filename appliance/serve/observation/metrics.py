"""Metrics of the gateway in the text format that Prometheus reads.

Owns the registry, the names and the labels. Rules:
- no name of a person or key becomes a label, and no text of a request: models and routes come from the plan;
- a request counts once, when it has ended; one that its user left has the status 499, whatever was sent until then;
- states that the gateway holds anyway (queues, engines) are read when the metrics are requested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from appliance.host.engine.state import RESTARTING, SERVING, STARTING, STOPPED
from appliance.serve.upstream.token_usage import TokenUsage

STATES = (STARTING, SERVING, RESTARTING, STOPPED)
"""States of an engine that always have a sample; one of another name has it while it lasts."""
_FIRST_TOKEN_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_PER_TOKEN_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """What is shown of one engine.

    Args:
        model: the model's name.
        level: how its bytes are bound to the signed ones; see `appliance.host.models.served_file`.
        isolation: `netns` or `none`.
        is_serving: whether it answers from verified bytes.
        slots: how many requests it works on at once.
        running: requests in flight.
        waiting: requests in its queue.
        state: of the engine, one word.
        is_incident: whether it was stopped since its bytes are not the signed ones, or cannot be read.
        cached: tokens that each slot of the engine holds, by the slot's number, as its last answers state them.
        context: tokens that a slot can hold.
    """

    model: str
    level: str
    isolation: str
    is_serving: bool
    slots: int
    running: int
    waiting: int
    state: str = SERVING
    is_incident: bool = False
    cached: Mapping[int, int] = field(default_factory=dict)
    context: int = 0


class Metrics:
    """The metrics of one gateway.

    Args:
        read_engines: the engines at this moment.
    """

    def __init__(self, read_engines: Callable[[], Iterable[EngineFigures]]) -> None:
        self._registry = registry = CollectorRegistry()
        registry.register(_EngineCollector(read_engines))
        ProcessCollector(namespace="appliance_gateway", registry=registry)
        self._requests = Counter(
            "appliance_requests",
            "Requests that have ended, by their status; 499 where the user left.",
            ("model", "route", "status"),
            registry=registry,
        )
        self._refused_keys = Counter("appliance_refused_keys", "Requests without a valid key.", (), registry=registry)
        self._refusals = Counter(
            "appliance_refusals",
            "Requests that the gateway refused, by the code of the error.",
            ("code",),
            registry=registry,
        )
        self._prompt_tokens = Counter(
            "appliance_prompt_tokens", "Tokens of prompts and of texts to embed.", ("model",), registry=registry
        )
        self._cached_tokens = Counter(
            "appliance_cached_prompt_tokens",
            "Tokens of prompts that an engine did not read again, since its slot held them already.",
            ("model",),
            registry=registry,
        )
        self._completion_tokens = Counter(
            "appliance_completion_tokens",
            "Tokens of answers; of a stream that broke off, its events.",
            ("model",),
            registry=registry,
        )
        self._first_token_s = Histogram(
            "appliance_time_to_first_token_seconds",
            "From the arrival of a request for a stream to its first event, with the time in the queue.",
            ("model",),
            registry=registry,
            buckets=_FIRST_TOKEN_S,
        )
        self._per_token_s = Histogram(
            "appliance_time_per_output_token_seconds",
            "Time for each token of an answer, as the engine measured it.",
            ("model",),
            registry=registry,
            buckets=_PER_TOKEN_S,
        )

    def register(self, collector: Collector) -> None:
        """Add figures of another part of the gateway, read when the metrics are requested."""
        self._registry.register(collector)

    def count_request(self, model: str, route: str, status: int) -> None:
        """Count a request that has ended."""
        self._requests.labels(model, route, str(status)).inc()

    def count_refused_key(self) -> None:
        """Count a request without a valid key."""
        self._refused_keys.inc()

    def count_refusal(self, code: str) -> None:
        """Count a request that the gateway itself refused; `code` is one of its own words, never a user's."""
        self._refusals.labels(code).inc()

    def count_tokens(self, model: str, usage: TokenUsage) -> None:
        """Count the tokens of one request, and the time for each token of its answer where the engine stated it."""
        self._prompt_tokens.labels(model).inc(usage.prompt)
        self._cached_tokens.labels(model).inc(usage.cached)
        self._completion_tokens.labels(model).inc(usage.completion)
        if usage.per_token_s is not None:
            self._per_token_s.labels(model).observe(usage.per_token_s)

    def observe_first_token(self, model: str, after_s: float) -> None:
        """Note how long a stream took to begin."""
        self._first_token_s.labels(model).observe(after_s)

    def format(self) -> bytes:
        """Serialize everything in the text format 0.0.4."""
        return generate_latest(_WithoutCreation(self._registry))


class _EngineCollector(Collector):
    def __init__(self, read_engines: Callable[[], Iterable[EngineFigures]]) -> None:
        self._read_engines = read_engines

    def describe(self) -> Iterable[Metric]:
        return self._format(())

    def collect(self) -> Iterable[Metric]:
        return self._format(tuple(self._read_engines()))

    def _format(self, engines: tuple[EngineFigures, ...]) -> Iterator[Metric]:
        text = "1 where an engine answers from verified bytes, else 0."
        serving = GaugeMetricFamily("appliance_engine_up", text, labels=("model", "level", "isolation"))
        for engine in engines:
            serving.add_metric((engine.model, engine.level, engine.isolation), float(engine.is_serving))
        yield serving
        for name, text, source in (
            ("slots", "Requests that an engine works on at once.", "slots"),
            ("slots_taken", "Requests in flight.", "running"),
            ("waiting", "Requests in the queue of an engine.", "waiting"),
        ):
            gauge = GaugeMetricFamily(f"appliance_{name}", text, labels=("model",))
            for engine in engines:
                gauge.add_metric((engine.model,), float(getattr(engine, source)))
            yield gauge
        yield from _states(engines)
        yield from _caches(engines)


def _states(engines: tuple[EngineFigures, ...]) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "appliance_engine_state", "1 for the state of an engine, else 0.", labels=("model", "state")
    )
    text = "1 while a model is stopped since its bytes are not the signed ones, or cannot be read; else 0."
    incident = GaugeMetricFamily("appliance_incident", text, labels=("model",))
    for engine in engines:
        for name in dict.fromkeys((*STATES, engine.state)):
            state.add_metric((engine.model, name), float(name == engine.state))
        incident.add_metric((engine.model,), float(engine.is_incident))
    yield state
    yield incident


def _caches(engines: tuple[EngineFigures, ...]) -> Iterator[Metric]:
    text = "Tokens in the KV cache of an engine, as its last answers state them."
    held = GaugeMetricFamily("appliance_kv_cache_tokens", text, labels=("model",))
    text = "Tokens that the KV cache of an engine can hold."
    most = GaugeMetricFamily("appliance_kv_cache_capacity_tokens", text, labels=("model",))
    for engine in engines:
        held.add_metric((engine.model,), float(sum(engine.cached.values())))
        most.add_metric((engine.model,), float(engine.context * engine.slots))
    yield held
    yield most


class _WithoutCreation(Collector):
    """Leaves out when each counter was created, which the library else shows as a gauge beside each."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
