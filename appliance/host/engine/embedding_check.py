"""What a model that makes embeddings is asked before the switch, and how its answer is judged.

Owns the golden sentences and the judgement. The engines are started and asked by `appliance.host.activation.candidate`
and the services.

Rules:
- an embedding has as many numbers as the signed contents say, all finite, and not all zero;
- the same sentence twice gives the same embedding: one that changes finds nothing again;
- where a golden sentence names a related and an unrelated one, the related one must be closer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bundles.contents.model import Model
from signing.errors import ApplyRestoredError

SAME = 1e-6
"""How far two embeddings of one sentence may be apart, as 1 - cosine: the last bits of a sum in another order."""


class Embedder(Protocol):
    """An engine, or a client of one."""

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """The embeddings of some texts, in their order."""


@dataclass(frozen=True, slots=True)
class GoldenSentence:
    """A sentence, one that means nearly the same, and one that does not; without both, closeness is not asked."""

    text: str
    near: str = ""
    far: str = ""


DEFAULT = GoldenSentence("The capital of France is Paris.")


def judge_embeddings(engine: Embedder, model: Model, golden: GoldenSentence = DEFAULT) -> str:
    """Let a model embed a sentence twice, and judge it.

    Args:
        engine: that runs the model.
        model: as the signed contents describe it.
        golden: what to embed.

    Returns:
        What was seen, in words.

    Raises:
        ApplyRestoredError: it is not what an embedding should be.
        ApplianceError: of the engine.
    """
    first, again = (_one(engine, model, golden.text) for _ in range(2))
    if (apart := 1 - cosine(first, again)) > SAME:
        raise _wrong(model, "the same embedding for the same sentence", f"two that are {apart:.3g} apart")
    seen = f"{len(first)} numbers, the same twice"
    if golden.near and golden.far:
        near, far = (cosine(first, _one(engine, model, text)) for text in (golden.near, golden.far))
        if not near > far:
            raise _wrong(model, f"{golden.near!r} closer than {golden.far!r}", f"{near:.3f} and {far:.3f}")
        seen += f"; related {near:.2f}, unrelated {far:.2f}"
    return seen


def cosine(one: Sequence[float], two: Sequence[float]) -> float:
    """The cosine of the angle between two embeddings that are not zero."""
    return sum(map(float.__mul__, one, two)) / (math.hypot(*one) * math.hypot(*two))


def _one(engine: Embedder, model: Model, text: str) -> list[float]:
    rows = engine.embed([text])
    found = rows[0] if len(rows) == 1 else []
    if len(found) != model.embedding:
        raise _wrong(model, f"one embedding of {model.embedding} numbers", f"{len(rows)}, of {len(found)} numbers")
    if not all(map(math.isfinite, found)) or not any(found):
        raise _wrong(model, "finite numbers that are not all zero", f"{found[:4]} …")
    return found


def _wrong(model: Model, expected: str, found: str) -> ApplyRestoredError:
    return ApplyRestoredError(
        "candidate.wrong-answer",
        model.name,
        expected=expected,
        found=found,
        hint="the release that served before still serves; show this to whoever built the bundle",
    )
