"""How many threads an engine gets.

Too many is far worse than too few: the engine's threads wait for each other by spinning, so one that the system keeps
off the processor stops all of them. Hence what this process may really use, and one core left for the rest of the
machine.
"""

from __future__ import annotations

import os
from pathlib import Path

from appliance.host.machine import cgroups


def thread_count(proc: Path = cgroups.PROC, sysfs: Path = cgroups.SYSFS, cores: int | None = None) -> int:
    """Threads for one engine that has the machine to itself.

    Args:
        proc, sysfs: where the control groups are described.
        cores: processors that this process may run on; None asks the system.

    Returns:
        At least 1; one less than is allowed where that is more than two.
    """
    allowed = len(os.sched_getaffinity(0)) if cores is None else cores
    quota = cgroups.cpu_quota(proc, sysfs)
    if quota is not None:
        allowed = min(allowed, max(1, int(quota)))
    return allowed - 1 if allowed > 2 else allowed
