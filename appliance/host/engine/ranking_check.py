"""The check of a model that sorts documents, before the switch to its release.

Owns the golden query with its documents and the checks of their scores. `appliance.host.activation` starts the engines.

Rules:
- each document has one score, which is finite;
- the same document has the same score in another order of the documents: else a list would depend on its order;
- documents of different meaning have different scores: a model that gives one score for all sorts nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.host.engine.wrong_answer import wrong_answer
from bundles.contents.contents import Model

SAME, SMALLEST = 1e-4, 1e-5
"""The largest distance of two scores of one document, as a part of the larger and at least: from rounding."""


class Ranker(Protocol):
    """An engine, or a client of one."""

    def rank(self, query: str, documents: Sequence[str]) -> list[float]:
        """The scores of some documents, in the order of the documents."""


@dataclass(frozen=True, slots=True)
class GoldenQuery:
    """A query, and two documents of different meaning."""

    query: str
    documents: tuple[str, str]


DEFAULT = GoldenQuery("What is the capital of France?", ("The capital of France is Paris.", "Cats sleep."))


def check_ranking(engine: Ranker, model: Model, golden: GoldenQuery = DEFAULT) -> str:
    """Rank two documents in both orders, and check the scores.

    Args:
        engine: runs the model.
        model: as the signed contents describe it.
        golden: the query and the documents.

    Returns:
        What was found, as a line for people.

    Raises:
        ApplyRestoredError: a score breaks a rule of this module.
        ApplianceError: the engine does not answer.
    """
    first = _scores(engine, model, golden.query, golden.documents)
    turned = _scores(engine, model, golden.query, golden.documents[::-1])[::-1]
    if not all(map(_is_same, first, turned)):
        raise wrong_answer(model.name, "the same scores in another order of the documents", f"{first} and {turned}")
    if first[0] == first[1]:
        raise wrong_answer(model.name, "different scores for documents of different meaning", f"{first}")
    return "2 documents, the same scores in both orders"


def _is_same(one: float, two: float) -> bool:
    return math.isclose(one, two, rel_tol=SAME, abs_tol=SMALLEST)


def _scores(engine: Ranker, model: Model, query: str, documents: Sequence[str]) -> list[float]:
    found = engine.rank(query, documents)
    if len(found) != len(documents):
        raise wrong_answer(model.name, f"{len(documents)} scores", f"{len(found)}")
    if not all(map(math.isfinite, found)):
        raise wrong_answer(model.name, "finite scores", f"{found}")
    return found
