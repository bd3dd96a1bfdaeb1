"""The estimate by formula, the sizes that llama.cpp reports, and the memory of a running engine agree."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.builder.cache.content_store import Cache
from appliance.builder.models.quantisation import QuantisationRequest, quantise
from appliance.host.engine.engine_command import EngineSpec
from appliance.host.engine.process import start_engine
from appliance.host.machine.cpu import cpu_flags, fitting_variants
from appliance.host.models.model_head import head_of_file
from appliance.host.process.programs import Programs
from appliance.host.runtime import memory_probe
from appliance.host.runtime.memory_probe import ProbedMemory, Runtime, probe_memory
from appliance.host.runtime.unpacked import UnpackedRuntime, of_wheel
from appliance.host.runtime.variant_choice import Bench, compare, evaluate
from appliance.host.runtime.variant_verdicts import try_variants
from bundles.gguf.memory import MemoryNeed, Workload, estimate
from bundles.progress import ignore
from signing.errors import ApplianceError
from tests.appliance.real_engine import describe_model
from tests.appliance.shipped import shipped_model, shipped_runtime
from tests.sim.gguf_files import F32, HOSTILE, gguf
from tests.sim.gguf_models import F16, Q4_0, Q8_0, Shape, write_model

AGREED = 0.05
MEASURED = 0.05
LOADS = (Workload(4096, 2), Workload(512, 1), Workload(8192, 4, "q8_0"))
SHAPES = (
    Shape("llama"),
    Shape("llama", width=2048, heads=32, kv_heads=8, ff=8192, layers=3, vocab=32000),
    Shape("qwen2", width=896, heads=14, ff=4864, vocab=151936),
    Shape("qwen3", head_dim=128, width=1024, heads=16, kv_heads=8, ff=3072),
    Shape("gemma2", layers=6, window=1024, width=2304, kv_heads=4, head_dim=256, ff=9216),
    Shape("gemma3", layers=18, window=512, width=640, heads=4, kv_heads=1, head_dim=256, ff=2048, vocab=262144),
    Shape("bert", layers=12, width=384, heads=12, kv_heads=12, head_dim=32, context=512, vocab=30522),
)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> UnpackedRuntime:
    return of_wheel(shipped_runtime().path, tmp_path_factory.mktemp("runtime"))


def with_runtime(need: MemoryNeed, probed: ProbedMemory) -> MemoryNeed:
    return replace(need, kv=probed.kv, compute=probed.compute)


@pytest.mark.ci
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.arch}-{shape.width}")
@pytest.mark.parametrize("kind", [F16, Q8_0, Q4_0])
def test_formula_and_runtime_agree_on_every_compared_architecture(
    unpacked: UnpackedRuntime, tmp_path: Path, shape: Shape, kind: int
) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, replace(shape, kind=kind))
    head = head_of_file(path, "m")
    for load in LOADS:
        load_of_model = replace(load, context=min(load.context, shape.context))
        need = estimate(head.header, load_of_model)
        probed = probe_memory(unpacked.runtime(), head.data, head.header.file_size, load_of_model)
        assert need.is_compared
        # Without the weights, whose exact size would hide an error of the formula.
        assert need.kv + need.compute == pytest.approx(probed.kv + probed.compute, rel=0.06)
        assert need.kv == pytest.approx(probed.kv, rel=0.01)
        assert need.total == pytest.approx(with_runtime(need, probed).total, rel=AGREED)


def peak_of_engine(model: Path, runtime: Path, load: Workload, log: Path, *, is_ranking: bool = False) -> int:
    """The peak memory of a serving engine, in bytes."""
    spec = EngineSpec("m", describe_model(model), model, runtime, load.context, load.slots, 1, is_ranking=is_ranking)
    with (
        tempfile.TemporaryDirectory(prefix="engine-") as run_dir,
        start_engine(spec, Path(run_dir), log) as engine,
    ):
        engine.wait_ready(120)
        if is_ranking:
            engine.rank("1", ["2 3"] * load.slots)
        else:
            engine.chat("Name the capital of France.", 8)
        assert engine.level == "E2"
        process = engine.child.program_pid
        assert process is not None
        # Its own pages, and the sealed copy of the model that it maps.
        status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:"))


@pytest.mark.ci
def test_engine_that_runs_takes_what_was_planned(unpacked: UnpackedRuntime, tmp_path: Path) -> None:
    _, model = shipped_model()
    head, load = head_of_file(model, "m"), Workload(4096, 2)
    need = estimate(head.header, load)
    probed = with_runtime(need, probe_memory(unpacked.runtime(), head.data, head.header.file_size, load))
    peak = peak_of_engine(model, unpacked.folder_with("x64"), load, tmp_path / "log")
    assert peak == pytest.approx(probed.total, rel=MEASURED)
    assert peak == pytest.approx(need.total, rel=MEASURED)


@pytest.mark.ci
@pytest.mark.parametrize("shape", [SHAPES[3], SHAPES[-1]], ids=lambda shape: shape.arch)
def test_model_that_ranks_takes_no_more_than_was_planned(
    unpacked: UnpackedRuntime, tmp_path: Path, shape: Shape
) -> None:
    model, load = tmp_path / "m.gguf", Workload(min(2048, shape.context), 2)
    write_model(model, replace(shape, layers=2, kind=F32, is_ranker=True))
    head = head_of_file(model, "m")
    need = estimate(head.header, load)
    probed = with_runtime(need, probe_memory(unpacked.runtime(), head.data, head.header.file_size, load))
    peak = peak_of_engine(model, unpacked.folder_with("x64"), load, tmp_path / "log", is_ranking=True)
    assert need.is_compared
    assert max(peak, probed.total) <= need.total * (1 + MEASURED)


@pytest.mark.ci
def test_copies_of_weights_in_another_order_are_planned_too(unpacked: UnpackedRuntime, tmp_path: Path) -> None:
    if "haswell" not in fitting_variants(unpacked.variants, cpu_flags()):
        pytest.skip("this machine lacks AVX2, without which no weights are copied")
    entry, source = shipped_model()
    cache = Cache(tmp_path / "cache")
    request = QuantisationRequest("m", "Q4_0", allow_requantize=True)
    pin = quantise(request, source, entry.used.sha256, shipped_runtime(), cache, ignore)
    model = cache.path(pin.sha256)
    need = estimate(head_of_file(model, "m").header, Workload(2048, 1))
    peak = peak_of_engine(model, unpacked.folder_with("haswell"), Workload(2048, 1), tmp_path / "log")
    assert need.repacked > need.total / 10
    assert peak == pytest.approx(need.total, rel=MEASURED)


@pytest.mark.ci
def test_model_that_the_runtime_refuses_is_an_error_with_its_reason(unpacked: UnpackedRuntime) -> None:
    data = gguf()
    with pytest.raises(ApplianceError) as caught:
        probe_memory(unpacked.runtime(), data, len(data), Workload(512, 1))
    assert caught.value.code == "plan.rehearsal"
    assert caught.value.found


@pytest.mark.ci
@pytest.mark.parametrize("name", ["an alignment of 3", "half a block", "nothing", "a file that ends in the header"])
def test_file_that_our_reader_refuses_harms_only_the_child(unpacked: UnpackedRuntime, name: str) -> None:
    with pytest.raises(ApplianceError) as caught:
        probe_memory(unpacked.runtime(), HOSTILE[name], len(HOSTILE[name]), Workload(512, 1))
    assert caught.value.code == "plan.rehearsal"


@pytest.mark.ci
def test_every_variant_with_the_flags_of_this_processor_is_right_or_does_not_run(unpacked: UnpackedRuntime) -> None:
    _, model = shipped_model()
    found = {one.name: one for one in try_variants(unpacked, model, cpu_flags(), ignore)}
    assert found["x64"].is_fit
    assert found["sse42"].how == "tried"
    assert set(found) == set(unpacked.variants)
    assert not [one for one in found.values() if "wrong results" in one.reason]


@pytest.mark.ci
def test_one_wrong_matrix_is_detected(unpacked: UnpackedRuntime, tmp_path: Path) -> None:
    _, model = shipped_model()
    other = tmp_path / "other.gguf"
    data, header = bytearray(model.read_bytes()), head_of_file(model, "m").header
    matrix = next(tensor for tensor in header.tensors if tensor.name == "blk.15.ffn_up.weight")
    # As by a routine that takes the halves of a byte in the wrong order. A block: two scales of 2 bytes, 16 pairs.
    assert matrix.type.name == "Q4_1"
    for block in range(header.data_start + matrix.offset, header.data_start + matrix.offset + matrix.size, 20):
        for at in range(block + 4, block + 20):
            data[at] = (data[at] & 15) << 4 | data[at] >> 4
    other.write_bytes(data)
    with (tmp_path / "lock").open("w") as lock:
        runtime, programs = unpacked.runtime(), Programs(tmp_path, lock.fileno())
        right, wrong = (
            Bench(unpacked.folder_with, runtime.python, path, 1, programs, runtime.package) for path in (model, other)
        )
        reference = evaluate("x64", right)
        assert isinstance(compare(reference, "sse42", right), float)
        assert "wrong results" in str(compare(reference, "sse42", wrong))


def stand_in(folder: Path, body: str) -> Runtime:
    program = folder / "python"
    program.write_text(f"#!{sys.executable} -I\nimport os, sys, time\n{body}\n")
    program.chmod(0o755)
    return Runtime(folder, "x64", program)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os.kill(os.getpid(), 6)", "SIGABRT"),
        ("sys.exit('llama.cpp: unknown model architecture')", "unknown model architecture"),
        ("print('not JSON')", "an answer of another form"),
        ('print(\'{"kv": "much"}\')', "an answer of another form"),
        ('print(\'{"kv": 1e999, "compute": 1}\')', "an answer of another form"),
        ("print('[' * 60000)", "an answer of another form"),
        ("time.sleep(60)", "SIGKILL"),
    ],
)
def test_child_that_crashes_hangs_or_answers_wrong_is_only_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, reason: str
) -> None:
    monkeypatch.setattr(memory_probe, "TIMEOUT_S", 1.5 if "sleep" in body else 60)
    with pytest.raises(ApplianceError) as caught:
        probe_memory(stand_in(tmp_path, body), b"head", 1000, Workload(512, 1))
    assert reason in caught.value.found


def test_child_gets_a_hole_instead_of_weights_and_nothing_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the caller")
    body = """
model = sys.argv[8]
data = open(model, 'rb').read()
assert data == b'head' + bytes(996), data[:20]
assert os.stat(model).st_blocks <= 8
assert 'SECRET' not in os.environ
assert sys.argv[9:] == ['512', '3', 'f16']
print('{"kv": 5, "compute": 7}')
"""
    assert probe_memory(stand_in(tmp_path, body), b"head", 1000, Workload(512, 3)) == ProbedMemory(5, 7)
