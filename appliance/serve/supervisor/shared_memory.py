"""How much memory the models that are loaded on demand may take together.

Owns this sum: what the host has for models, as `plan` counts it, without the models that are always loaded.
"""

from __future__ import annotations

from appliance.host.machine.probe import read_memory
from appliance.host.models.fit import memory_budget
from appliance.host.preflight.serving import release_workloads
from appliance.serve.supervisor.launch_plan import NO_MEMORY, Launch, SharedMemory


def shared_memory(launch: Launch) -> SharedMemory:
    """The memory that the models take that are loaded on demand, and what all of them may take together.

    Args:
        launch: what is served.

    Returns:
        Nothing where every model is always loaded. The room is what the others leave of the memory that `plan` counts
        with, and never less than the largest of these models needs: whether that fits was decided by the install.
    """
    if not any(served.is_on_demand for served in launch.models):
        return NO_MEMORY
    known = {one.name: one.need.total for one in release_workloads(launch.release)}
    needs = {one.model.name: known.get(one.model.name, one.spec.file.size) for one in launch.models}
    shared = {one.model.name: needs[one.model.name] for one in launch.models if one.is_on_demand}
    always = sum(needs.values()) - sum(shared.values())
    return SharedMemory(max(memory_budget(read_memory()) - always, *shared.values()), shared)
