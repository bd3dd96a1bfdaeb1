"""Whether models fit into a host's memory, and what would fit where they do not.

Owns the one verdict about memory: the comparison of a card with what models need (`bundles.gguf.memory`), and the
search for alternatives. `plan` and the preflight of an install both use it. It reads no machine and runs no runtime:
both are values here.

Rules:
- a part of the memory belongs to the rest of the machine and is never planned with;
- a limit of control groups counts as the machine's own memory does;
- models that are always loaded are served at the same time, so their needs add up. Of those that are loaded on demand,
  the largest counts: the gateway loads no more than there is room for;
- no model is planned with more context than it has, except where a person asks for it;
- where it does not fit, three alternatives are named, those that fit first, each with what it would take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from appliance.host.machine.card import Card, Gpu, Memory
from bundles.gguf.header import GgufHeader
from bundles.gguf.kind import most_context, task_of
from bundles.gguf.memory import (
    CELLS,
    RESERVE_BYTES,
    MemoryNeed,
    Workload,
    compute_bytes,
    estimate,
    layer_bytes,
    layer_kv_bytes,
)

MAX_SLOTS = 256
ALTERNATIVES = 3
GPU_RESERVE_BYTES = 512 << 20
"""Memory of a graphics processor that its driver and the libraries take."""


class Quantisation(NamedTuple):
    """A way to store weights: its name, the average bits per weight, and the bits of its repacked copy."""

    name: str
    bits: float
    copied_bits: float


QUANTISATIONS = (
    Quantisation("Q8_0", 8.5, 0),
    Quantisation("Q6_K", 6.6, 0),
    Quantisation("Q5_K_M", 5.7, 0),
    Quantisation("Q4_K_M", 4.9, 3.8),
    Quantisation("Q3_K_M", 4.0, 0),
    Quantisation("Q2_K", 3.3, 2.2),
)


@dataclass(frozen=True, slots=True)
class ModelWorkload:
    """A model that is to be served, with its workload.

    Args:
        name: for people.
        header: of its GGUF, checked.
        workload: context, slots and type of the cache.
        quantised: how the weights would be stored, where another way than the header's is considered.
        is_on_demand: whether the site lets it be unloaded, so that it may make room for another.
    """

    name: str
    header: GgufHeader
    workload: Workload
    quantised: Quantisation | None = None
    is_on_demand: bool = False

    @property
    def need(self) -> MemoryNeed:
        """The memory that it needs, by the formula."""
        need, kind, count = estimate(self.header, self.workload), self.quantised, self.header.parameters
        if kind is None:
            return need
        weights = self.header.data_start + int(count * kind.bits / 8)
        return replace(need, weights=weights, repacked=int(count * kind.copied_bits / 8))


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another way to serve the models: in words, the bytes that all of them then take, and whether that fits."""

    text: str
    total: int
    fits: bool


@dataclass(frozen=True, slots=True)
class GpuFit:
    """How many layers of a model a graphics processor could hold; None where its memory is unseen."""

    address: str
    model: str
    layers: int | None
    of_layers: int


@dataclass(frozen=True, slots=True)
class Fit:
    """The verdict.

    Args:
        budget: bytes that models may take on this host.
        total: bytes that they need.
        most_slots, longest_context: what would still fit, each with the other as planned; 0 where nothing does. A
            model that has a shorter context than the longest one is planned with its own.
        alternatives: empty where it fits.
        gpus: for each model and graphics processor.
    """

    budget: int
    total: int
    most_slots: int
    longest_context: int
    alternatives: tuple[Alternative, ...]
    gpus: tuple[GpuFit, ...]

    @property
    def fits(self) -> bool:
        """Whether the models fit as they are planned."""
        return self.total <= self.budget


def budget_bytes(card: Card) -> int:
    """Bytes that models may take on a host: its memory, or what control groups leave, less a part for the rest."""
    return memory_budget(card.memory)


def memory_budget(memory: Memory) -> int:
    """As `budget_bytes`, of the memory alone."""
    most = memory.ram_bytes if memory.limit_bytes is None else min(memory.ram_bytes, memory.limit_bytes)
    return max(0, most - RESERVE_BYTES)


def together(models: Sequence[ModelWorkload], needs: Sequence[int]) -> int:
    """Bytes that models take at the same time, at least: those on demand take turns.

    Args:
        models: of one host.
        needs: bytes that each takes while it is loaded.
    """
    pairs = list(zip(models, needs, strict=True))
    always = sum(need for model, need in pairs if not model.is_on_demand)
    return always + max((need for model, need in pairs if model.is_on_demand), default=0)


def fit(models: Sequence[ModelWorkload], card: Card, needs: Sequence[MemoryNeed]) -> Fit:
    """Compare models with a host.

    Args:
        models: of one host; at least one.
        card: the host.
        needs: what each takes, by the formula or as the runtime itself reports it.
    """
    budget, total = budget_bytes(card), together(models, [need.total for need in needs])
    # The runtime's own numbers differ from the formula's by a little; the search adds that difference to every total.
    search = _Search(tuple(models), budget, total - _total(models))
    return Fit(
        budget=budget,
        total=total,
        most_slots=search.most_slots(MAX_SLOTS),
        longest_context=search.longest_context(max(_most_context(one) for one in models)),
        alternatives=search.alternatives() if total > budget else (),
        gpus=tuple(_gpu_fit(gpu, one) for gpu in card.gpus for one in models),
    )


@dataclass(frozen=True, slots=True)
class _Search:
    models: tuple[ModelWorkload, ...]
    budget: int
    offset: int

    def total(self, models: Sequence[ModelWorkload]) -> int:
        return max(0, _total(models) + self.offset)

    def most_slots(self, top: int) -> int:
        return _largest(1, top, lambda slots: self.total(_with(self.models, slots=slots)) <= self.budget)

    def longest_context(self, top: int) -> int:
        top = min(top, max(_most_context(one) for one in self.models))
        cells = max(1, top // CELLS)
        found = _largest(1, cells, lambda n: self.total(_with(self.models, context=n * CELLS)) <= self.budget)
        return min(top, CELLS * found)

    def alternatives(self) -> tuple[Alternative, ...]:
        found = [*self.simple(), *self.combined()]
        named: dict[str, Alternative] = {}
        for one in sorted(found, key=lambda one: not one.fits):
            named.setdefault(one.text, one)
        return tuple(named.values())[:ALTERNATIVES]

    def simple(self) -> list[Alternative]:
        """Alternatives with one change: the smallest that makes the models fit, else the largest that is possible."""
        slots, context = self.planned_slots, self.planned_context
        found = []
        if slots > 1:
            fewer = max(1, self.most_slots(slots))
            found.append(self.named(f"{fewer} instead of {slots} slots", _with(self.models, slots=fewer)))
        if context > CELLS:
            shorter = max(CELLS, self.longest_context(context - 1))
            found.append(
                self.named(f"a context of {shorter} instead of {context} tokens", _with(self.models, context=shorter))
            )
        if any(one.workload.kv_type == "f16" for one in self.models):
            found.append(self.named("a KV cache of type q8_0 instead of f16", _with(self.models, kv_type="q8_0")))
        return found + self.quantised(self.models, "")

    def combined(self) -> list[Alternative]:
        """Alternatives with several changes, for hosts where no single one is enough."""
        small = _with(self.models, slots=1, context=min(self.planned_context, 4096), kv_type="q8_0")
        smallest = _with(self.models, slots=1, context=min(self.planned_context, CELLS), kv_type="q8_0")
        words = f"1 slot, a context of {small[0].workload.context} tokens and a KV cache of type q8_0"
        tiny = f"1 slot, a context of {smallest[0].workload.context} tokens and a KV cache of type q8_0"
        return [self.named(words, small), self.named(tiny, smallest), *self.quantised(small, f", {words}")]

    def quantised(self, models: Sequence[ModelWorkload], also: str) -> list[Alternative]:
        """The largest smaller quantisation that fits, or the smallest."""
        found = []
        for kind in QUANTISATIONS:
            smaller = [replace(one, quantised=kind) for one in models]
            if self.total(smaller) < self.total(models):
                found.append(self.named(f"weights quantised to {kind.name}{also}", smaller))
        fitting = [one for one in found if one.fits]
        return fitting[:1] or found[-1:]

    def named(self, text: str, models: Sequence[ModelWorkload]) -> Alternative:
        total = self.total(models)
        return Alternative(text, total, total <= self.budget)

    @property
    def planned_slots(self) -> int:
        return max(one.workload.slots for one in self.models)

    @property
    def planned_context(self) -> int:
        return max(one.workload.context for one in self.models)


def _total(models: Sequence[ModelWorkload]) -> int:
    return together(models, [one.need.total for one in models])


def _with(
    models: Sequence[ModelWorkload], slots: int | None = None, context: int | None = None, kv_type: str | None = None
) -> list[ModelWorkload]:
    return [
        replace(
            one,
            workload=Workload(
                one.workload.context if context is None else min(context, _most_context(one)),
                one.workload.slots if slots is None else slots,
                kv_type or one.workload.kv_type,
            ),
        )
        for one in models
    ]


def _most_context(model: ModelWorkload) -> int:
    return most_context(model.header, task_of(model.header)) or model.workload.context


def _largest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """Find the largest number that fits; 0 where none does. Every number below one that fits must fit, too."""
    if not fits(low):
        return 0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _gpu_fit(gpu: Gpu, model: ModelWorkload) -> GpuFit:
    layers = list(zip(layer_bytes(model.header), layer_kv_bytes(model.header, model.workload), strict=True))
    if gpu.memory_bytes is None:
        return GpuFit(gpu.address, model.name, None, len(layers))
    left = gpu.memory_bytes - GPU_RESERVE_BYTES - compute_bytes(model.header, model.workload)
    count = 0
    # llama.cpp moves the last layers to the graphics processor first.
    for weights, cache in reversed(layers):
        left -= weights + cache
        if left < 0:
            break
        count += 1
    return GpuFit(gpu.address, model.name, count, len(layers))
