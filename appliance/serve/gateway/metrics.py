"""Figures of the gateway in the text format that Prometheus reads.

Owns the counters. No name of a person or key ever becomes a label.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

PREFIX = "appliance_"
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counters that only rise, and gauges that are asked for when somebody reads."""

    def __init__(self) -> None:
        self._counters: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Raise a counter."""
        self._counters[name][tuple(sorted(labels.items()))] += amount

    def text(self, gauges: Iterable[tuple[str, float, dict[str, str]]] = ()) -> str:
        """Everything, one figure on each line."""
        lines = []
        for name, values in sorted(self._counters.items()):
            lines.append(f"# TYPE {PREFIX}{name} counter")
            lines += [_line(name, labels, value) for labels, value in sorted(values.items())]
        seen = set()
        for name, value, labels in sorted(gauges, key=lambda gauge: gauge[0]):
            if name not in seen:
                lines.append(f"# TYPE {PREFIX}{name} gauge")
                seen.add(name)
            lines.append(_line(name, tuple(sorted(labels.items())), value))
        return "\n".join(lines) + "\n"


def _line(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels)
    return f"{PREFIX}{name}{{{inside}}} {value:g}" if inside else f"{PREFIX}{name} {value:g}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
