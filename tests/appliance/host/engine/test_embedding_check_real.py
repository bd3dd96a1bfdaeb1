"""The real engine and a tiny model that embeds: the check before the switch, and the comparison of CPU variants."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.entry_points import LOGITS
from appliance.host.engine.embedding_check import GoldenSentence, check_embeddings, cosine
from appliance.host.engine.engine_command import EngineSpec
from appliance.host.engine.process import Engine, start_engine
from appliance.host.runtime.logits import TOLERANCE, Logits, read_logits
from appliance.host.runtime.unpacked import UnpackedRuntime, of_wheel
from signing.errors import ApplianceError, ApplyRestoredError
from tests.appliance.host.engine.test_embedding_check import MODEL
from tests.appliance.real_engine import describe_model
from tests.appliance.shipped import shipped_runtime
from tests.sim.gguf_models import EMBEDDER, write_embedder

pytestmark = pytest.mark.ci
TINY = replace(MODEL, embedding=EMBEDDER.width)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> UnpackedRuntime:
    return of_wheel(shipped_runtime().path, tmp_path_factory.mktemp("runtime"))


@contextmanager
def running(model: Path, unpacked: UnpackedRuntime) -> Iterator[Engine]:
    spec = EngineSpec("m", describe_model(model), model, unpacked.folder_with("x64"), 64, 2, 1, is_embedding=True)
    with (
        tempfile.TemporaryDirectory(prefix="engine-") as run_dir,
        start_engine(spec, Path(run_dir), model.with_suffix(".log")) as engine,
    ):
        engine.wait_ready(60)
        yield engine


def test_engine_embeds_the_same_twice_and_refuses_to_chat(unpacked: UnpackedRuntime, tmp_path: Path) -> None:
    write_embedder(tmp_path / "m.gguf")
    with running(tmp_path / "m.gguf", unpacked) as engine:
        assert check_embeddings(engine, TINY, GoldenSentence("the cat sat on a mat")) == "32 numbers, the same twice"
        one, two, three = engine.embed(["the cat sat .", "the cat sat", "a mat on a mat"])
        assert cosine(one, two) != cosine(one, three)
        with pytest.raises(ApplianceError, match="engine.no-answer"):
            engine.chat("the cat", 4)


def test_model_whose_weights_are_zero_is_refused_at_the_gate(unpacked: UnpackedRuntime, tmp_path: Path) -> None:
    write_embedder(tmp_path / "m.gguf", is_dumb=True)
    with running(tmp_path / "m.gguf", unpacked) as engine, pytest.raises(ApplyRestoredError) as raised:
        check_embeddings(engine, TINY)
    assert raised.value.code == "candidate.wrong-answer"


def evaluated(model: Path, variant: str, unpacked: UnpackedRuntime) -> Logits | None:
    result = model.with_suffix(f".{variant}")
    argv = [
        sys.executable,
        "-I",
        "-B",
        "-m",
        LOGITS,
        str(unpacked.folder_with(variant)),
        variant,
    ]
    argv += [str(unpacked.package), str(model), "1", str(result)]
    subprocess.run(argv, check=True, capture_output=True)
    return read_logits(result)


def test_variant_is_compared_by_the_embeddings_that_it_computes(unpacked: UnpackedRuntime, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.gguf", tmp_path / "wrong.gguf"
    write_embedder(right)
    data = bytearray(right.read_bytes())
    # One weight in eight of the last layer gets another sign, in place of a variant that computes wrong.
    signs = slice(len(data) // 2 + 3 - len(data) // 2 % 4, None, 4 * 8)
    data[signs] = bytes(byte ^ 0x80 for byte in data[signs])
    wrong.write_bytes(data)
    x64, sse42 = evaluated(right, "x64", unpacked), evaluated(right, "sse42", unpacked)
    other = evaluated(wrong, "x64", unpacked)
    assert x64 is not None
    assert sse42 is not None
    assert other is not None
    assert len(x64.values) == 2 * 32
    assert x64.divergence(sse42) < TOLERANCE / 100
    assert not x64.divergence(other) <= TOLERANCE


def test_result_that_was_never_computed_is_refused(unpacked: UnpackedRuntime, tmp_path: Path) -> None:
    write_embedder(tmp_path / "m.gguf", is_dumb=True)
    assert evaluated(tmp_path / "m.gguf", "x64", unpacked) is None
