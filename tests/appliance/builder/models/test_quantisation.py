"""`quantize:` in a recipe: how the bundle's own program is called, what is cached, how failures are reported."""

from __future__ import annotations

import json
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.builder.cache.content_store import Cache
from appliance.builder.lock.lockfile import Pin
from appliance.builder.models.quantisation import WHOLE_TYPES, QuantisationRequest, quantise
from appliance.builder.recipe.choices import QUANTISATIONS
from appliance.builder.runtime.build_types import BuiltRuntime
from bundles.gguf.types import FILE_TYPES
from bundles.progress import Progress, ignore
from signing.digest import sha256
from signing.errors import ApplianceError, UsageError
from tests.sim.gguf_files import ARCH, gguf, head, tensor_info, text

REQUEST = QuantisationRequest("tiny", "Q4_K_M")
SAY = 'echo "llama_quantize: about to begin"; echo "[   1/   2] blk.0.a - type = f32"; echo "[   2/   2] blk.0.b"\n'
COPY = (
    'for last; do out=$before; before=$type; type=$threads; threads=$last; done\ncp "${0%/*}/result.gguf" "$before"\n'
)
SOURCE = gguf()


def _result(file_type: int) -> bytes:
    return gguf([text("general.file_type") + struct.pack("<II", 4, file_type)])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.gguf"
    path.write_bytes(SOURCE)
    return path


def _runtime(folder: Path, script: str = SAY + COPY, file_type: int = 15) -> BuiltRuntime:
    """A wheel whose llama-quantize is a script; its result is a copy of the file beside it."""
    folder.mkdir(exist_ok=True)
    path = folder / "llama_cpp_python-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        listing = f'printf "%s\\n" "$@" > {folder}/asked; ls "${{0%/*}}" > {folder}/beside; env > {folder}/env\n'
        archive.writestr("llama_cpp/lib/llama-quantize", "#!/bin/sh\n" + listing + script)
        archive.writestr("llama_cpp/lib/result.gguf", _result(file_type))
        archive.writestr("llama_cpp/lib/libggml-cpu-haswell.so", "a variant")
        archive.writestr("llama_cpp/__init__.py", "")
    digest = sha256(path.read_bytes())
    return BuiltRuntime(path, digest, 1, 1, "1.0", ("x64",), "2.34", "3.4.30", "1.3.13", {}, ())


def _quantise(request: QuantisationRequest, source: Path, runtime: BuiltRuntime, cache: Cache) -> Pin:
    return quantise(request, source, sha256(source.read_bytes()), runtime, cache, ignore)


def test_model_is_quantised_by_the_bundles_program_and_cached_under_its_digest(source: Path, tmp_path: Path) -> None:
    runtime, cache = _runtime(tmp_path / "r"), Cache(tmp_path / "cache")
    events: list[Progress] = []
    made = quantise(REQUEST, source, sha256(SOURCE), runtime, cache, events.append)

    assert made == Pin("tiny.Q4_K_M.gguf", len(_result(15)), sha256(_result(15)))
    assert cache.path(made.sha256).read_bytes() == _result(15)
    asked = (tmp_path / "r" / "asked").read_text().split("\n")
    assert (asked[0], asked[2]) == (str(source), "Q4_K_M")
    steps = [(event.done, event.total) for event in events if event.task == "quantising tiny"]
    assert steps == [(1, 2), (2, 2)]


def test_program_sees_no_cpu_variant_and_nothing_of_this_machines_environment(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GGML_BACKEND_PATH", "/somewhere/else.so")
    monkeypatch.setenv("LD_PRELOAD_OF_MINE", "x")
    _quantise(REQUEST, source, _runtime(tmp_path / "r"), Cache(tmp_path / "cache"))

    assert (tmp_path / "r" / "beside").read_text().split() == ["llama-quantize", "result.gguf"]
    names = {line.partition("=")[0] for line in (tmp_path / "r" / "env").read_text().splitlines()}
    assert names <= {"HOME", "LC_ALL", "PWD", "SHLVL", "_", "OLDPWD"}


def test_second_quantisation_runs_nothing(source: Path, tmp_path: Path) -> None:
    runtime, cache = _runtime(tmp_path / "r"), Cache(tmp_path / "cache")
    first = _quantise(REQUEST, source, runtime, cache)
    (tmp_path / "r" / "asked").unlink()

    assert _quantise(REQUEST, source, runtime, Cache(cache.root)) == first
    assert not (tmp_path / "r" / "asked").exists()


@pytest.mark.parametrize("other", ["source", "runtime", "arguments"])
def test_another_source_runtime_or_argument_is_another_model(other: str, source: Path, tmp_path: Path) -> None:
    runtime, cache, request = _runtime(tmp_path / "r"), Cache(tmp_path / "cache"), REQUEST
    _quantise(request, source, runtime, cache)
    (tmp_path / "r" / "asked").unlink()
    if other == "source":
        source.write_bytes(SOURCE + b"more")
    elif other == "runtime":
        runtime = replace(runtime, sha256=sha256(b"another"))
    else:
        request = replace(request, allow_requantize=True)
    _quantise(request, source, runtime, cache)

    assert (tmp_path / "r" / "asked").exists()


def test_model_damaged_in_the_cache_is_produced_again(source: Path, tmp_path: Path) -> None:
    runtime, cache = _runtime(tmp_path / "r"), Cache(tmp_path / "cache")
    made = _quantise(REQUEST, source, runtime, cache)
    path = cache.path(made.sha256)
    path.write_bytes(bytes(made.size))

    assert _quantise(REQUEST, source, runtime, Cache(cache.root)) == made
    assert path.read_bytes() == _result(15)


@pytest.mark.parametrize("damage", [b"{}", b"[]", b"not json", b'{"key":"x"}'])
def test_damaged_record_is_not_used(damage: bytes, source: Path, tmp_path: Path) -> None:
    runtime, cache = _runtime(tmp_path / "r"), Cache(tmp_path / "cache")
    made = _quantise(REQUEST, source, runtime, cache)
    [record] = (cache.root / "quantised").glob("*.json")
    record.write_bytes(damage)

    assert _quantise(REQUEST, source, runtime, cache) == made
    assert json.loads(record.read_bytes())["sha256"] == made.sha256


def test_lineage_names_the_program_its_runtime_and_every_argument() -> None:
    runtime = sha256(b"wheel")

    assert REQUEST.step(runtime) == f"llama-quantize sha256:{runtime} Q4_K_M"
    again = replace(REQUEST, allow_requantize=True)
    assert again.step(runtime) == f"llama-quantize sha256:{runtime} --allow-requantize Q4_K_M"


def test_weights_that_are_quantised_already_are_refused_unless_the_recipe_allows_it(tmp_path: Path) -> None:
    source = tmp_path / "small.gguf"
    source.write_bytes(head(tensors=1) + ARCH + tensor_info("t", [32], 2, 0) + bytes(256))
    runtime, cache = _runtime(tmp_path / "r"), Cache(tmp_path / "cache")
    with pytest.raises(UsageError) as raised:
        _quantise(REQUEST, source, runtime, cache)

    assert (raised.value.code, raised.value.exit_code) == ("quantise.twice", 2)
    assert "Q4_0" in raised.value.found
    assert "allow_requantize" in raised.value.hint
    assert not (tmp_path / "r" / "asked").exists()
    _quantise(replace(REQUEST, allow_requantize=True), source, runtime, cache)
    assert (tmp_path / "r" / "asked").read_text().startswith("--allow-requantize\n")


@pytest.mark.parametrize(
    ("script", "end"),
    [
        ("echo 'GGML_ASSERT(n > 0) failed' >&2; kill -ABRT $$\n", "ended by signal 6"),
        ("echo 'unknown architecture: llama' >&2; exit 1\n", "exit status 1"),
    ],
    ids=["an assert", "a refusal"],
)
def test_program_that_dies_on_a_model_is_reported_with_its_last_lines(
    script: str, end: str, source: Path, tmp_path: Path
) -> None:
    wall = "for i in $(seq 500); do echo a wall of text $i; done\n"
    cache = Cache(tmp_path / "cache")
    with pytest.raises(ApplianceError) as raised:
        _quantise(REQUEST, source, _runtime(tmp_path / "r", wall + COPY + script), cache)

    error = raised.value
    assert (error.code, error.subject, error.exit_code) == ("quantise.failed", "model tiny", 1)
    assert error.expected == "success of llama-quantize Q4_K_M"
    assert error.found.splitlines()[-2:] == [script.split("'")[1], end]
    assert len(error.found.splitlines()) < 10
    assert "a wall of text 1\n" in Path(error.hint.removeprefix("the whole log: ")).read_text()
    assert not list((cache.root / "partial").iterdir())
    assert not list((cache.root / "quantised").glob("*.json"))


@pytest.mark.parametrize("result", [1, 7])
def test_model_of_another_type_than_asked_for_is_not_taken(result: int, source: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with pytest.raises(ApplianceError) as raised:
        _quantise(REQUEST, source, _runtime(tmp_path / "r", file_type=result), cache)

    assert (raised.value.code, raised.value.found) == ("quantise.failed", FILE_TYPES[result])
    assert not (cache.root / "sha256").exists()


def test_every_quantisation_of_a_recipe_has_the_name_that_a_header_gives_it() -> None:
    assert set(QUANTISATIONS) <= set(FILE_TYPES.values())
    assert set(WHOLE_TYPES) <= set(QUANTISATIONS)
