"""Whether the engines of two releases fit into a host's memory at the same time.

Owns the choice between a switch beside the release that serves and one in a window, and the memory of both. The needs
are those of `appliance.host.models.fit`, and so is the budget.

Rules:
- beside: the new engines start while the old ones serve, and nobody waits;
- in a window: the old engines end first. Until the new ones are ready, requests get 503 with `Retry-After`;
- a limit of control groups counts without what the engines that serve take of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from appliance.host.machine.card import Card
from appliance.host.models.fit import ModelWorkload, budget_bytes, together

FIRST, BESIDE, WINDOW = "first", "beside", "window"
"""Nothing serves yet; both serve for a while; the old one ends before the new one starts."""


@dataclass(frozen=True, slots=True)
class SwitchMemory:
    """The memory of a switch, in bytes.

    Args:
        way: `first`, `beside` or `window`.
        now: the need of the models that serve.
        after: the need of the new release's models.
        during: the most that is needed at one moment of the switch.
        budget: what models may take on this host.
    """

    way: str
    now: int
    after: int
    during: int
    budget: int


def judge_switch(now: Sequence[ModelWorkload], new: Sequence[ModelWorkload], card: Card) -> SwitchMemory:
    """Choose the way of a switch by the memory that both releases need.

    Args:
        now: the models that serve, each with its workload; none where nothing serves.
        new: the models of the new release.
        card: the host.
    """
    if now:
        card = replace(card, memory=replace(card.memory, limit_bytes=None))
    budget = budget_bytes(card)
    before, after = (together(models, [one.need.total for one in models]) for models in (now, new))
    if not now:
        return SwitchMemory(FIRST, 0, after, after, budget)
    if before + after <= budget:
        return SwitchMemory(BESIDE, before, after, before + after, budget)
    return SwitchMemory(WINDOW, before, after, max(before, after), budget)
