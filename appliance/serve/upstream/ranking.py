"""Scores of documents, put together as the sorted list that a client of `/v1/rerank` expects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from appliance.serve.upstream.connection import LostError
from appliance.serve.upstream.pieces import join_usage

if TYPE_CHECKING:
    from appliance.serve.requests.work import Ranking


def rank_answers(answers: Sequence[dict[str, Any]], wanted: Ranking) -> dict[str, Any]:
    """Sort documents by their scores, the best first; equal ones in the order of the request.

    Args:
        answers: of the engine, one for each document.
        wanted: how the answer is written.

    Raises:
        LostError: the engine gave a document no finite score.
    """
    scores = [_score(answer) for answer in answers]
    order = sorted(range(len(scores)), key=lambda at: -scores[at])[: wanted.top_n]
    results: list[dict[str, Any]] = [{"index": at, "relevance_score": scores[at]} for at in order]
    for result in results if wanted.documents else ():
        result["document"] = {"text": wanted.documents[result["index"]]}
    usage = join_usage([answer.get("usage") or {} for answer in answers])
    return {"object": "list", "model": answers[0].get("model", ""), "results": results, "usage": usage}


def _score(answer: dict[str, Any]) -> float:
    try:
        score = float(answer["results"][0]["relevance_score"])
    except (LookupError, TypeError, ValueError):
        raise LostError("an answer without a score") from None
    if not math.isfinite(score):
        raise LostError("a score that is no number")
    return score
