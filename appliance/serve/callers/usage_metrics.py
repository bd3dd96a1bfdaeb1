"""Usage by account in the metrics, under public ids: a name would be about a person (docs/team.md, Keys)."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from appliance.serve.callers.usage import Usage

_FAMILIES = (
    ("appliance_key_prompt_tokens", "Tokens of prompts, by the id of the owner's first key.", "tokens_in"),
    ("appliance_key_completion_tokens", "Tokens of answers, by the id of the owner's first key.", "tokens_out"),
    ("appliance_key_requests", "Requests that an engine answered, by the id of the owner's first key.", "requests"),
)


class UsageCollector(Collector):
    """Reads the usage of a gateway since its start.

    Args:
        usage: of the gateway.
    """

    def __init__(self, usage: Usage) -> None:
        self._usage = usage

    def collect(self) -> Iterator[CounterMetricFamily]:
        """See `prometheus_client`."""
        for name, text, field in _FAMILIES:
            family = CounterMetricFamily(name, text, labels=("account",))
            for account, counts in sorted(self._usage.totals.items()):
                family.add_metric((account,), getattr(counts, field))
            yield family
