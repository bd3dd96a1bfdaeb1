"""A model that makes embeddings is checked before the switch; wrong embeddings are refused."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.host.activation.candidate import check_model
from appliance.host.engine.client import EngineClient
from appliance.host.engine.embedding_check import GoldenSentence, check_embeddings, cosine
from appliance.host.engine.process import Engine, start_engine
from bundles.contents.contents import Model
from bundles.contents.lineage import Lineage
from bundles.gguf.header import read_header
from signing.digest import sha256
from signing.errors import ApplianceError, ApplyRestoredError
from tests.sim.engines import make_spec, notes
from tests.sim.gguf_models import Shape, write_model

WIDTH = 8
MODEL = Model(
    "toy",
    "models/toy/toy.gguf",
    "bert",
    1,
    "F16",
    64,
    sha256(b""),
    None,
    "MIT",
    Lineage("file:toy.gguf", sha256(b""), 1),
    embedding=WIDTH,
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="embeds-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    spec = replace(make_spec(folder), is_embedding=True)
    with start_engine(spec, folder, folder / "log") as engine:
        engine.wait_ready(20)
        yield engine


def client(engine: Engine) -> EngineClient:
    return EngineClient("toy", engine.socket, "its log")


def test_engine_of_an_embedding_model_is_started_for_embeddings_alone(engine: Engine, folder: Path) -> None:
    assert "--embeddings" in notes(folder)[0]["argv"]


def test_engine_of_a_chat_model_is_not_started_for_embeddings(tmp_path: Path, folder: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="chats-") as name,
        start_engine(make_spec(tmp_path), Path(name), tmp_path / "log") as other,
    ):
        other.wait_ready(20)
        assert "--embeddings" not in notes(Path(name))[0]["argv"]


def test_embedding_of_the_right_form_is_accepted(engine: Engine) -> None:
    assert check_model(engine, MODEL) == "8 numbers, the same twice"
    assert check_model(client(engine), MODEL) == "8 numbers, the same twice"


def test_embeddings_come_in_the_order_of_their_texts(engine: Engine) -> None:
    one, two = engine.embed(["a cat", "b"])
    assert (one, two) == (engine.embed(["a cat"])[0], engine.embed(["b"])[0])
    assert one != two


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("short", "one embedding of 8 numbers"),
        ("zero", "finite numbers that are not all zero"),
        ("nan", "finite numbers that are not all zero"),
        ("drift", "the same embedding for the same sentence"),
    ],
)
def test_wrong_embedding_is_refused(text: str, expected: str, engine: Engine) -> None:
    with pytest.raises(ApplyRestoredError) as raised:
        check_embeddings(engine, MODEL, GoldenSentence(text))
    assert (raised.value.code, raised.value.subject) == ("candidate.wrong-answer", "toy")
    assert (raised.value.expected, raised.value.exit_code) == (expected, 7)


def test_related_sentence_must_be_closer_where_the_golden_one_names_both(engine: Engine) -> None:
    text, near, far = "the cat sat", "the cat sat down", "prices rose"
    assert "related" in check_embeddings(engine, MODEL, GoldenSentence(text, near, far))
    with pytest.raises(ApplyRestoredError, match="closer than"):
        check_embeddings(engine, MODEL, GoldenSentence(text, far, near))


def test_fewer_rows_than_texts_is_refused() -> None:
    class Silent:
        def embed(self, texts: Sequence[str]) -> list[list[float]]:
            return []

    with pytest.raises(ApplyRestoredError, match="one embedding of 8 numbers"):
        check_embeddings(Silent(), MODEL)


def test_engine_that_does_not_answer_is_an_error_of_the_engine(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError, match="engine.no-answer"):
        EngineClient("toy", tmp_path / "no.sock", "its log").embed(["x"])


def test_cosine_is_one_for_parallel_and_zero_for_perpendicular_vectors() -> None:
    assert math.isclose(cosine([3.0, 4.0], [6.0, 8.0]), 1.0)
    assert cosine([1.0, 0.0], [0.0, 2.0]) == 0.0


@pytest.mark.parametrize(("arch", "expected"), [("bert", 64), ("llama", 0)])
def test_header_shows_whether_a_model_embeds_or_chats(arch: str, expected: int, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    size = write_model(path, Shape(arch, layers=1, width=64, heads=2, kv_heads=2, head_dim=32, ff=64, vocab=32))
    with path.open("rb") as stream:
        assert read_header(stream, size, "m").embedding == expected
