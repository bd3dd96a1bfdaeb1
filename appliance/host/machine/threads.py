"""How many threads an engine gets.

Too many threads are far worse than too few. An engine's threads wait for each other by spinning, so one thread without
a processor stops all of them. Hence an engine gets the cores that this process may really use, less one for the rest
of the machine.
"""

from __future__ import annotations

import os
from pathlib import Path

from appliance.host.machine import cgroups


def thread_count(proc: Path = cgroups.PROC, sysfs: Path = cgroups.SYSFS, cores: int | None = None) -> int:
    """Count the threads for an engine that runs alone on this machine.

    Args:
        proc, sysfs: the folders where the kernel describes control groups.
        cores: cores that this process may run on; None reads that from the system.

    Returns:
        At least 1; one less than the allowed cores where those are more than two.
    """
    allowed = len(os.sched_getaffinity(0)) if cores is None else cores
    quota = cgroups.cpu_quota(proc, sysfs)
    if quota is not None:
        allowed = min(allowed, max(1, int(quota)))
    return allowed - 1 if allowed > 2 else allowed
