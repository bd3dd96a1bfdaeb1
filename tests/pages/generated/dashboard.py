"""`dashboard.json` of the gateway: a Grafana dashboard over its metrics, from a table of panels.

Rules:
- every panel asks for metrics that the gateway has; a test compares them;
- the data source is chosen when the dashboard is imported: no name of a site is in it;
- the form is that of Grafana's dashboards (schema 39), which later versions migrate by themselves.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

_SOURCE = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
_WIDTH, _HEIGHT = 12, 8
_LEGEND = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}


@dataclass(frozen=True)
class Panel:
    """A panel: its title, what it explains, its unit in Grafana, and its queries with the legend of each."""

    title: str
    text: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"


def _rate(metric: str, by: str) -> str:
    return f'sum by ({by}) (rate({metric}{{job=~"$job"}}[$__rate_interval]))'


def _of(metric: str) -> str:
    return f'{metric}{{job=~"$job"}}'


def _quantile(metric: str, part: str) -> str:
    inner = f'sum by (le, model) (rate({metric}_bucket{{job=~"$job"}}[$__rate_interval]))'
    return f"histogram_quantile({part}, {inner})"


def _quantiles(metric: str) -> tuple[tuple[str, str], ...]:
    return tuple((_quantile(metric, part), f"{{{{model}}}} {name}") for part, name in (("0.5", "p50"), ("0.95", "p95")))


PANELS = (
    Panel(
        "Models",
        "1 where an engine answers from verified bytes. The legend names the level of the bytes.",
        "short",
        ((_of("appliance_engine_up"), "{{model}} {{level}} {{isolation}}"),),
        "stat",
    ),
    Panel(
        "Incidents",
        "1 while a model is stopped since its bytes are not the signed ones, or cannot be read.",
        "short",
        ((_of("appliance_incident"), "{{model}}"),),
        "stat",
    ),
    Panel(
        "State of engines",
        "The state that is 1.",
        "short",
        ((f"{_of('appliance_engine_state')} == 1", "{{model}} {{state}}"),),
    ),
    Panel(
        "Requests by status",
        "Requests that have ended each second; 499 where the user left.",
        "reqps",
        ((_rate("appliance_requests_total", "status"), "{{status}}"),),
    ),
    Panel(
        "Refusals by code",
        "Requests that the gateway itself refused, and requests without a valid key.",
        "reqps",
        (
            (_rate("appliance_refusals_total", "code"), "{{code}}"),
            (_rate("appliance_refused_keys_total", "job"), "no valid key"),
        ),
    ),
    Panel(
        "Tokens",
        "Tokens of prompts and of answers each second, and those of prompts that an engine did not read again.",
        "short",
        (
            (_rate("appliance_prompt_tokens_total", "model"), "{{model}} in"),
            (_rate("appliance_completion_tokens_total", "model"), "{{model}} out"),
            (_rate("appliance_cached_prompt_tokens_total", "model"), "{{model}} in, held already"),
        ),
    ),
    Panel(
        "Time to first token",
        "From the arrival of a request for a stream to its first event, with the time in the queue.",
        "s",
        _quantiles("appliance_time_to_first_token_seconds"),
    ),
    Panel(
        "Time for each token",
        "As the engine measured it.",
        "s",
        _quantiles("appliance_time_per_output_token_seconds"),
    ),
    Panel(
        "Queue",
        "Pieces of work that wait for a slot.",
        "short",
        ((_of("appliance_waiting"), "{{model}}"),),
    ),
    Panel(
        "Slots in use",
        "The part of the slots of each engine that works.",
        "percentunit",
        ((f"{_of('appliance_slots_taken')} / {_of('appliance_slots')}", "{{model}}"),),
    ),
    Panel(
        "KV cache",
        "The part of the cache of each engine that holds tokens.",
        "percentunit",
        ((f"{_of('appliance_kv_cache_tokens')} / {_of('appliance_kv_cache_capacity_tokens')}", "{{model}}"),),
    ),
    Panel(
        "Tokens by account",
        "Tokens in and out each second, by the public id of an account; `appliance access usage` has the names.",
        "short",
        (
            (_rate("appliance_key_prompt_tokens_total", "account"), "{{account}} in"),
            (_rate("appliance_key_completion_tokens_total", "account"), "{{account}} out"),
        ),
    ),
    Panel(
        "Answers by account",
        "Requests that an engine answered, each second.",
        "reqps",
        ((_rate("appliance_key_requests_total", "account"), "{{account}}"),),
    ),
    Panel(
        "Memory of the gateway",
        "The memory that the gateway's own process holds.",
        "bytes",
        ((_of("appliance_gateway_process_resident_memory_bytes"), "gateway"),),
    ),
    Panel(
        "Descriptors of the gateway",
        "Open descriptors: connections, engines, files.",
        "short",
        ((_of("appliance_gateway_process_open_fds"), "gateway"),),
    ),
)


def page() -> str:
    """The text of the dashboard."""
    return json.dumps(dashboard(), indent=1) + "\n"


def dashboard() -> dict[str, Any]:
    """The dashboard, as Grafana imports it."""
    source = {"name": "DS_PROMETHEUS", "label": "Prometheus", "description": "", "type": "datasource"}
    job = {
        "name": "job",
        "label": "Job",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": "label_values(appliance_slots, job)", "refId": "job"},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }
    return {
        "__inputs": [{**source, "pluginId": "prometheus", "pluginName": "Prometheus"}],
        "uid": "airgap-appliance",
        "title": "Appliance",
        "description": "Models, requests, tokens and queues of an air-gapped appliance.",
        "tags": ["llm", "appliance"],
        "timezone": "utc",
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [job]},
        "annotations": {"list": []},
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    place = {"h": _HEIGHT, "w": _WIDTH, "x": number % 2 * _WIDTH, "y": number // 2 * _HEIGHT}
    targets = [
        {"refId": chr(ord("A") + at), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
        for at, (query, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": _LEGEND if panel.kind == "timeseries" else {"textMode": "value_and_name"},
        "targets": targets,
    }
