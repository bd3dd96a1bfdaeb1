"""The real engine and a tiny model that ranks: the check before the switch, and the comparison of CPU variants."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.host.engine.engine_command import EngineSpec
from appliance.host.engine.process import Engine, start_engine
from appliance.host.engine.ranking_check import check_ranking
from appliance.host.runtime.logits import TOLERANCE
from appliance.host.runtime.unpacked import UnpackedRuntime, of_wheel
from signing.errors import ApplianceError, ApplyRestoredError
from tests.appliance.host.engine.test_embedding_check_real import evaluated
from tests.appliance.host.engine.test_ranking_check import MODEL
from tests.appliance.real_engine import describe_model
from tests.appliance.shipped import shipped_runtime
from tests.sim.gguf_models import CAUSAL, EMBEDDER, Shape, write_embedder

pytestmark = pytest.mark.ci


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> UnpackedRuntime:
    return of_wheel(shipped_runtime().path, tmp_path_factory.mktemp("runtime"))


@contextmanager
def running(model: Path, unpacked: UnpackedRuntime) -> Iterator[Engine]:
    context = 1024 if model.name == "causal.gguf" else 64
    folder = unpacked.folder_with("x64")
    spec = EngineSpec("m", describe_model(model), model, folder, context, 2, 1, is_ranking=True)
    with (
        tempfile.TemporaryDirectory(prefix="engine-") as run_dir,
        start_engine(spec, Path(run_dir), model.with_suffix(".log")) as engine,
    ):
        engine.wait_ready(60)
        yield engine


def test_engine_ranks_the_same_in_both_orders_and_refuses_to_chat(unpacked: UnpackedRuntime, tmp_path: Path) -> None:
    write_embedder(tmp_path / "m.gguf", is_ranker=True)
    with running(tmp_path / "m.gguf", unpacked) as engine:
        assert check_ranking(engine, MODEL) == "2 documents, the same scores in both orders"
        with pytest.raises(ApplianceError, match="engine.no-answer"):
            engine.chat("the cat", 4)


def test_causal_model_ranks_documents_longer_than_a_batch(unpacked: UnpackedRuntime, tmp_path: Path) -> None:
    write_embedder(tmp_path / "causal.gguf", CAUSAL, is_ranker=True)
    with running(tmp_path / "causal.gguf", unpacked) as engine:
        assert check_ranking(engine, MODEL) == "2 documents, the same scores in both orders"
        one, two = engine.rank("1", ["2 " * 400, "3 " * 400])
        assert 0 < one < 1
        assert one != two


def test_model_whose_weights_are_zero_is_refused_at_the_gate(unpacked: UnpackedRuntime, tmp_path: Path) -> None:
    write_embedder(tmp_path / "m.gguf", is_dumb=True, is_ranker=True)
    with running(tmp_path / "m.gguf", unpacked) as engine, pytest.raises(ApplyRestoredError) as raised:
        check_ranking(engine, MODEL)
    assert raised.value.expected == "different scores for documents of different meaning"


@pytest.mark.parametrize("shape", [EMBEDDER, CAUSAL], ids=lambda shape: shape.arch)
def test_variant_is_compared_by_all_numbers_before_the_score(
    shape: Shape, unpacked: UnpackedRuntime, tmp_path: Path
) -> None:
    right, wrong = tmp_path / "right.gguf", tmp_path / "wrong.gguf"
    write_embedder(right, shape, is_ranker=True)
    data = bytearray(right.read_bytes())
    # One weight in eight of the second half gets another sign, in place of a variant that computes wrong.
    signs = slice(len(data) // 2 + 3 - len(data) // 2 % 4, None, 4 * 8)
    data[signs] = bytes(byte ^ 0x80 for byte in data[signs])
    wrong.write_bytes(data)
    x64, sse42 = evaluated(right, "x64", unpacked), evaluated(right, "sse42", unpacked)
    other = evaluated(wrong, "x64", unpacked)
    assert x64 is not None
    assert sse42 is not None
    assert other is not None
    assert len(x64.values) == 2 * shape.width
    assert x64.divergence(sse42) < TOLERANCE / 100
    assert not x64.divergence(other) <= TOLERANCE
