"""Whether the models of the release fit into memory with what the site has decided.

Owns this check of `appliance config apply`; the needs and the budget are those of `appliance.host.models.fit`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from appliance.host.machine.card import Card
from appliance.host.models.fit import ModelWorkload, fit
from appliance.host.models.model_head import head_of_file
from appliance.host.release.release import Release
from appliance.host.site.config import SiteConfig
from bundles.gguf.memory import Workload
from signing.errors import HostUnfitError


def check_memory(release: Release, site: SiteConfig, card: Card) -> None:
    """Refuse a context or a number of slots for which this host has too little memory.

    Args:
        release: the one that serves.
        site: what would be applied.
        card: of the machine.

    Raises:
        HostUnfitError: naming what fits instead.
    """
    models = tuple(_workloads(release, site))
    # The engines that serve are in the same control group: their memory comes back when they end.
    card = replace(card, memory=replace(card.memory, limit_bytes=None))
    verdict = fit(models, card, [model.need for model in models])
    if verdict.total <= verdict.budget:
        return
    others = "; or ".join(one.text for one in verdict.alternatives if one.fits)
    raise HostUnfitError(
        "config.does-not-fit",
        str(release.prefix.site_file),
        expected=f"models of at most {verdict.budget >> 20} MiB",
        found=f"{verdict.total >> 20} MiB with this context and these slots",
        hint=f"set a smaller context or fewer slots: {others}".removesuffix(": "),
    )


def _workloads(release: Release, site: SiteConfig) -> Iterator[ModelWorkload]:
    on_demand = site.on_demand(model.name for model in release.contents.models)
    for model in release.contents.models:
        head = head_of_file(release.model_file(model)[1], model.name)
        context = min(site.context or model.context, model.context)
        workload = Workload(context, site.slots or release.contents.serve.slots)
        yield ModelWorkload(head.name, head.header, workload, is_on_demand=model.name in on_demand)
