"""The check of a model that makes embeddings, before the switch to its release.

Owns the golden sentences and the checks of their embeddings. `appliance.host.activation` starts the engines.

Rules:
- an embedding has as many numbers as the signed contents state, all finite, and not all zero;
- the same sentence gives the same embedding twice: else a search would not find what was stored;
- where a golden sentence has a related and an unrelated one, the related one must be closer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.host.engine.wrong_answer import wrong_answer
from bundles.contents.contents import Model

SAME = 1e-6
"""The largest distance of two embeddings of one sentence, as 1 - cosine: from sums in another order."""


class Embedder(Protocol):
    """An engine, or a client of one."""

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """The embeddings of some texts, in the order of the texts."""


@dataclass(frozen=True, slots=True)
class GoldenSentence:
    """A sentence to embed.

    Args:
        text: the sentence.
        near, far: a sentence of nearly the same meaning and one of another; without both their distances are not
            compared.
    """

    text: str
    near: str = ""
    far: str = ""


DEFAULT = GoldenSentence("The capital of France is Paris.")


def check_embeddings(engine: Embedder, model: Model, golden: GoldenSentence = DEFAULT) -> str:
    """Embed a sentence twice, and check the embeddings.

    Args:
        engine: runs the model.
        model: as the signed contents describe it.
        golden: the sentence.

    Returns:
        What was found, as a line for people.

    Raises:
        ApplyRestoredError: an embedding breaks a rule of this module.
        ApplianceError: the engine does not answer.
    """
    first, again = (_one(engine, model, golden.text) for _ in range(2))
    if (apart := 1 - cosine(first, again)) > SAME:
        raise wrong_answer(model.name, "the same embedding for the same sentence", f"two that are {apart:.3g} apart")
    seen = f"{len(first)} numbers, the same twice"
    if golden.near and golden.far:
        near, far = (cosine(first, _one(engine, model, text)) for text in (golden.near, golden.far))
        if not near > far:
            raise wrong_answer(model.name, f"{golden.near!r} closer than {golden.far!r}", f"{near:.3f} and {far:.3f}")
        seen += f"; related {near:.2f}, unrelated {far:.2f}"
    return seen


def cosine(one: Sequence[float], two: Sequence[float]) -> float:
    """The cosine of the angle between two embeddings that are not zero."""
    return sum(map(float.__mul__, one, two)) / (math.hypot(*one) * math.hypot(*two))


def _one(engine: Embedder, model: Model, text: str) -> list[float]:
    rows = engine.embed([text])
    found = rows[0] if len(rows) == 1 else []
    if len(found) != model.embedding:
        raise wrong_answer(
            model.name, f"one embedding of {model.embedding} numbers", f"{len(rows)}, of {len(found)} numbers"
        )
    if not all(map(math.isfinite, found)) or not any(found):
        raise wrong_answer(model.name, "finite numbers that are not all zero", f"{found[:4]} …")
    return found
