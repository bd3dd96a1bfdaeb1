"""Whether the models of the release can be served here with what the site has decided: their memory, and their levels.

Owns these checks of `appliance config apply`; the needs and the budget are those of `appliance.host.models.fit`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from appliance.host.machine.card import Card
from appliance.host.models.fit import ModelWorkload, fit
from appliance.host.models.levels import E4, too_low
from appliance.host.models.model_head import head_of_file
from appliance.host.models.served_file import has_signed_seal
from appliance.host.release.release import Release
from appliance.host.site.config import SiteConfig
from bundles.contents.contents import Model
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


def check_levels(release: Release, site: SiteConfig) -> None:
    """Refuse level E4 for a model whose file has no seal here: its engine would not start.

    Args:
        release: the one that serves.
        site: what would be applied.

    Raises:
        HostUnfitError: code `model.level`, for each such model.
    """
    errors = [
        too_low(model.name, E4, "no seal, or another one than the signed contents list")
        for model in release.contents.models
        if model.name in site.models and site.models[model.name].min_level == E4 and not _is_sealed(release, model)
    ]
    if errors:
        errors[0].others = tuple(errors[1:])
        raise errors[0]


def _is_sealed(release: Release, model: Model) -> bool:
    file, path = release.model_file(model)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return has_signed_seal(file, descriptor)
    finally:
        os.close(descriptor)


def _workloads(release: Release, site: SiteConfig) -> Iterator[ModelWorkload]:
    on_demand = site.on_demand(model.name for model in release.contents.models)
    for model in release.contents.models:
        head = head_of_file(release.model_file(model)[1], model.name)
        context = min(site.context or model.context, model.context)
        workload = Workload(context, site.slots or release.contents.serve.slots)
        yield ModelWorkload(head.name, head.header, workload, is_on_demand=model.name in on_demand)
