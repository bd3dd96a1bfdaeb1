"""The memory that a bundle declares for its models.

Owns the value of `needs.ram_bytes`: the formula of `bundles.gguf.memory`, which the host's plan uses, too, and a sum
for what runs beside a model.
"""

from __future__ import annotations

from bundles.gguf.header import GgufHeader
from bundles.gguf.memory import Workload, estimate

REST_BYTES = 512 << 20
"""The system, the gateway, and the room that a busy machine needs."""


def serving_bytes(header: GgufHeader, context: int, slots: int) -> int:
    """Bytes of memory that a host must have to serve a model.

    Args:
        header: of its GGUF.
        context: tokens for each slot.
        slots: parallel requests.
    """
    return estimate(header, Workload(context, slots)).total + REST_BYTES
