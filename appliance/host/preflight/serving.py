"""The models that serve on this host, with the workload that each is configured for.

Owns how a plan and a switch learn what the release that serves needs of the memory. It reads the headers of models and
the rendered configuration. None of it decides about trust.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from appliance.host.layout.prefix import Prefix
from appliance.host.models.fit import ModelWorkload
from appliance.host.models.model_head import head_of_file
from appliance.host.release.release import Release, open_current
from appliance.host.release.rendered_configuration import on_demand_models
from bundles.contents.contents import Model
from bundles.gguf.memory import Workload
from signing.errors import ApplianceError


def serving_workloads(prefix: Prefix, now: datetime, beside: Path) -> tuple[ModelWorkload, ...]:
    """List the models of the release that `current` names.

    Args:
        prefix: the host; nothing may be installed there.
        now: the clock, in UTC.
        beside: the folder of the release that is to be installed; none is listed where it serves already.

    Returns:
        Those whose files can be read; none where nothing serves.
    """
    with suppress(ApplianceError, OSError):
        release = open_current(prefix, now)
        return () if release.path == beside else release_workloads(release)
    return ()


def release_workloads(release: Release) -> tuple[ModelWorkload, ...]:
    """List the models of a release whose files lie on this host and can be read, with their configured workloads."""
    found, on_demand = [], on_demand_models(release)
    for model in release.contents.models:
        with suppress(ApplianceError, OSError):
            head = head_of_file(release.model_file(model)[1], model.name)
            workload, may_go = _workload(release, model), model.name in on_demand
            found.append(ModelWorkload(model.name, head.header, workload, is_on_demand=may_go))
    return tuple(found)


def _workload(release: Release, model: Model) -> Workload:
    try:
        rendered = json.loads((release.config / f"engine-{model.name}.json").read_bytes())
        return Workload(int(rendered["context"]), int(rendered["slots"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Workload(model.context, release.contents.serve.slots)
