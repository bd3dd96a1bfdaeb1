"""`docs/dependencies.md`: what the bundle of the demo's recipe brings to a host, and why."""

from __future__ import annotations

from appliance.builder.bills.dependencies import format_dependencies
from appliance.builder.lock.lockfile import lock_path, read_lock
from appliance.resources import recipes_path

RECIPE = "smollm2.yaml"


def page() -> str:
    """The text, from the lock beside the recipe."""
    return format_dependencies(
        read_lock(lock_path(recipes_path() / RECIPE)), f"the bundle of `bundles/recipes/{RECIPE}`"
    )
