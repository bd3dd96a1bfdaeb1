"""The memory that a bundle declares for its models.

Owns the value of `needs.ram_bytes`: by the formula and the reserve of `bundles.gguf.memory`, as `appliance plan` and
the preflight of a host calculate it.
"""

from __future__ import annotations

from collections.abc import Iterable

from bundles.gguf.header import GgufHeader
from bundles.gguf.memory import RESERVE_BYTES, Workload, estimate


def serving_bytes(models: Iterable[tuple[GgufHeader, Workload]]) -> int:
    """Bytes of memory that a host must have to serve models at the same time.

    Args:
        models: the header of each GGUF, and its workload.
    """
    return sum(estimate(header, workload).total for header, workload in models) + RESERVE_BYTES
