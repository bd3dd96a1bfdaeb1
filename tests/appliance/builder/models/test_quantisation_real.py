"""`quantize:` with the real runtime and a real model: the same bytes each time, a model that runs, and a bundle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pytest

from appliance.builder.assembly import assembler as assembling
from appliance.builder.cache.content_store import Cache
from appliance.builder.lock.lockfile import Pin, lock_path
from appliance.builder.models.quantisation import QuantisationRequest, quantise
from appliance.builder.wheels.reader import wheel_members
from appliance.keys.workspace import create_development
from bundles.gguf.header import read_header
from bundles.progress import ignore
from signing.digest import sha256
from signing.errors import ApplianceError
from tests.appliance.shipped import RECIPE, shipped_cache, shipped_model, shipped_runtime
from tests.sim.gguf_files import gguf

pytestmark = pytest.mark.ci
NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Whole:
    """A model with weights of 16 bits, and a cache of its own."""

    pin: Pin
    cache: Cache

    @property
    def path(self) -> Path:
        return self.cache.path(self.pin.sha256)

    def quantise(self, quantisation: str, cache: Cache) -> Pin:
        request = QuantisationRequest("m", quantisation)
        return quantise(request, self.path, self.pin.sha256, shipped_runtime(), cache, ignore)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    entry, path = shipped_model()
    cache = Cache(tmp_path_factory.mktemp("whole") / "cache")
    request = QuantisationRequest("whole", "F16", allow_requantize=True)
    return Whole(quantise(request, path, entry.used.sha256, shipped_runtime(), cache, ignore), cache)


@pytest.fixture
def one_processor() -> Iterator[None]:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


@pytest.fixture(scope="module")
def first(whole: Whole, tmp_path_factory: pytest.TempPathFactory) -> tuple[Pin, Path]:
    cache = Cache(tmp_path_factory.mktemp("first") / "cache")
    pin = whole.quantise("Q4_K_M", cache)
    return pin, cache.path(pin.sha256)


def test_second_run_with_another_number_of_threads_gives_the_same_bytes(
    whole: Whole, first: tuple[Pin, Path], one_processor: None, tmp_path: Path
) -> None:
    assert whole.quantise("Q4_K_M", Cache(tmp_path / "cache")) == first[0]


def test_result_is_smaller_of_the_asked_type_and_keeps_the_chat_template(whole: Whole, first: tuple[Pin, Path]) -> None:
    pin, path = first
    with path.open("rb") as made, whole.path.open("rb") as source:
        after, before = read_header(made, pin.size, "made"), read_header(source, whole.pin.size, "source")

    assert (before.quantisation, after.quantisation) == ("F16", "Q4_K_M")
    assert pin.size < whole.pin.size / 2
    assert after.template_digest == before.template_digest
    assert after.parameters == before.parameters


def test_result_runs(first: tuple[Pin, Path], tmp_path: Path) -> None:
    wheel = shipped_runtime().path
    with zipfile.ZipFile(wheel) as archive:
        for member in wheel_members(wheel):
            name = Path(member.path).name
            if "ggml-cpu" not in name or "x64" in name:
                (tmp_path / name).write_bytes(archive.read(member.path))
                (tmp_path / name).chmod(member.mode)
    argv = [
        str(tmp_path / "llama-bench"),
        "-m",
        str(first[1]),
        "-p",
        "8",
        "-n",
        "4",
        "-r",
        "1",
        "-t",
        "1",
        "-o",
        "json",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)

    rows = json.loads(done.stdout)
    assert [row["n_gen"] for row in rows] == [0, 4]
    assert all("Q4_K" in row["model_type"] and row["avg_ts"] > 0 for row in rows)


def test_model_that_the_program_cannot_read_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    source = tmp_path / "senseless.gguf"
    source.write_bytes(gguf())
    request, cache = QuantisationRequest("m", "Q8_0"), Cache(tmp_path / "cache")
    with pytest.raises(ApplianceError) as raised:
        quantise(request, source, sha256(gguf()), shipped_runtime(), cache, ignore)

    assert raised.value.code == "quantise.failed"
    assert "llama.vocab_size" in raised.value.found or "key not found" in raised.value.found


def test_bundle_records_the_source_and_the_steps_of_its_model(tmp_path: Path) -> None:
    recipe = tmp_path / "small.yaml"
    request = "    quantize: Q8_0\n    allow_requantize: true\n"
    recipe.write_text(RECIPE.read_text().replace("    context: 8192\n", f"    context: 8192\n{request}"))
    shutil.copy(lock_path(RECIPE), lock_path(recipe))
    workspace, _ = create_development(tmp_path / "workspace", NOW)
    (entry, _), cache = shipped_model(), shipped_cache()
    before = set(cache.folder("quantised").iterdir())
    built = assembling.assemble(recipe, workspace, cache, NOW, ignore)
    assert built.bundle is not None

    [model] = built.bundle.value.contents.models
    for path in set(cache.folder("quantised").iterdir()) - before:
        path.unlink()
    cache.discard(built.bundle.value.contents.by_path[model.path].sha256)
    assert model.path == "models/smollm2-135m/smollm2-135m.Q8_0.gguf"
    assert model.quantisation == "Q8_0"
    assert (model.lineage.sha256, model.lineage.size) == (entry.used.sha256, entry.used.size)
    [wheel] = built.bundle.value.contents.of_kind("runtime")
    assert model.lineage.steps == (f"llama-quantize sha256:{wheel.sha256} --allow-requantize Q8_0",)
