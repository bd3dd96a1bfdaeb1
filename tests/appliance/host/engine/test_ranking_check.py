"""A model that sorts documents is checked before the switch; wrong scores are refused."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from appliance.host.activation.candidate import check_model
from appliance.host.engine.client import EngineClient
from appliance.host.engine.process import Engine, start_engine
from appliance.host.engine.ranking_check import check_ranking
from signing.errors import ApplianceError, ApplyRestoredError
from tests.appliance.host.engine.test_embedding_check import MODEL as EMBEDS
from tests.sim.engines import make_spec, notes

MODEL = replace(EMBEDS, embedding=0, task="rerank")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ranks-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    with start_engine(replace(make_spec(folder), is_ranking=True), folder, folder / "log") as engine:
        engine.wait_ready(20)
        yield engine


def test_engine_of_a_model_that_ranks_is_started_for_ranking_alone(engine: Engine, folder: Path) -> None:
    argv = notes(folder)[0]["argv"]
    assert "--reranking" in argv
    assert "--embeddings" not in argv


def test_scores_of_the_right_form_are_accepted(engine: Engine) -> None:
    for one in (engine, EngineClient("toy", engine.socket, "its log")):
        assert check_model(one, MODEL) == "2 documents, the same scores in both orders"


def test_scores_come_in_the_order_of_their_documents(engine: Engine) -> None:
    assert engine.rank("a cat", ["a dog", "a cat", "x"]) == [1.0, 2.0, 0.0]


@dataclass
class Staged:
    """An engine whose answers are written down."""

    answers: list[list[float]]
    asked: list[Sequence[str]] = field(default_factory=list)

    def rank(self, query: str, documents: Sequence[str]) -> list[float]:
        self.asked.append(documents)
        return self.answers.pop(0)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([[1.0]], "2 scores"),
        ([[]], "2 scores"),
        ([[1.0, math.nan]], "finite scores"),
        ([[1.0, math.inf]], "finite scores"),
        ([[2.0, 1.0], [2.0, 1.0]], "the same scores in another order of the documents"),
        ([[2.0, 1.0], [1.0, 2.01]], "the same scores in another order of the documents"),
        ([[0.0, 0.0], [0.0, 0.0]], "different scores for documents of different meaning"),
    ],
)
def test_wrong_scores_are_refused(answers: list[list[float]], expected: str) -> None:
    with pytest.raises(ApplyRestoredError) as raised:
        check_ranking(Staged(answers), MODEL)
    assert (raised.value.code, raised.value.subject) == ("candidate.wrong-answer", "toy")
    assert (raised.value.expected, raised.value.exit_code) == (expected, 7)


def test_rounding_is_no_fault_and_the_documents_were_turned() -> None:
    engine = Staged([[2.0, 1e-6], [3e-6, 2.0001]])
    assert check_ranking(engine, MODEL)
    assert engine.asked[0] == engine.asked[1][::-1]


def test_engine_that_gives_no_number_is_an_error_of_the_engine(engine: Engine) -> None:
    with pytest.raises(ApplianceError, match="engine.no-answer"):
        engine.rank("x", ["nan"])
