"""The parts of a split model are merged by the bundle's own program, once, and the lineage names all of them."""

from __future__ import annotations

import subprocess
import zipfile
from datetime import datetime, timezone
from pathlib import Path

import pytest

from appliance.builder.assembly.assembler import assemble
from appliance.builder.cache.content_store import Cache
from appliance.builder.lock.lockfile import Pin, lock_path, read_lock, write_lock
from appliance.builder.models.merging import MergeRequest, merge
from appliance.builder.recipe.reader import load_recipe
from appliance.builder.resolve.resolver import lock_recipe
from appliance.builder.runtime.build_types import BuiltRuntime
from appliance.builder.runtime.programs import unpack_programs
from appliance.keys.workspace import create_development
from bundles.gguf.header import read_header
from bundles.progress import Progress, ignore
from signing.digest import sha256
from signing.errors import ApplianceError, NotTrustedError
from tests.appliance.big_build import write_recipe
from tests.appliance.shipped import shipped_cache, shipped_runtime
from tests.sim.gguf_files import gguf
from tests.sim.odd_models import WHOLE, servable, split_parts

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
PARTS = split_parts(2)
STAND_IN = """#!/bin/sh
echo "$@" >{folder}/asked
cat "${{2%/*}}"/part-*.gguf >{folder}/parts
echo "gguf_merge: writing tensors one"
echo "gguf_merge: writing tensors two"
cp "${{0%/*}}/result.gguf" "$3"
"""


def runtime_of(folder: Path, script: str = STAND_IN, result: bytes = b"") -> BuiltRuntime:
    path = folder / "llama_cpp_python-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("llama_cpp/lib/llama-gguf-split", script.format(folder=folder))
        archive.writestr("llama_cpp/lib/result.gguf", result or gguf())
    return BuiltRuntime(path, sha256(path.read_bytes()), 1, 1, "1.0", ("x64",), "2.34", "3.4.30", "1.3.13", {}, ())


def request_of(folder: Path, parts: list[bytes]) -> tuple[MergeRequest, list[Path]]:
    pins, paths = [], []
    for number, data in enumerate(parts, 1):
        paths.append(folder / f"in{number}.gguf")
        paths[-1].write_bytes(data)
        pins.append(Pin(f"m-0000{number}-of-0000{len(parts)}.gguf", len(data), sha256(data)))
    return MergeRequest("m", tuple(pins)), paths


def test_parts_are_merged_once_and_cached(tmp_path: Path) -> None:
    runtime, cache = runtime_of(tmp_path), Cache(tmp_path / "cache")
    request, paths = request_of(tmp_path, PARTS)
    events: list[Progress] = []
    made = merge(request, paths, runtime, cache, events.append)
    assert made == Pin("m.gguf", len(gguf()), sha256(gguf()))
    assert cache.path(made.sha256).read_bytes() == gguf()
    assert (tmp_path / "parts").read_bytes() == b"".join(PARTS)
    assert (tmp_path / "asked").read_text().startswith("--merge ")
    assert [event.done for event in events if event.task == "merging m"] == [1, 2]
    assert list((cache.root / "partial").iterdir()) == []
    (tmp_path / "asked").unlink()
    assert merge(request, paths, runtime, cache, ignore) == made
    assert not (tmp_path / "asked").exists()


def test_step_names_the_runtime_and_all_parts_in_order(tmp_path: Path) -> None:
    request, _ = request_of(tmp_path, PARTS)
    listed = "".join(f"{sha256(data)}  m-0000{at}-of-00002.gguf\n" for at, data in enumerate(PARTS, 1))
    expected = f"llama-gguf-split sha256:{sha256(b'wheel')} --merge parts=sha256:{sha256(listed.encode())}"
    assert request.step(sha256(b"wheel")) == expected


@pytest.mark.parametrize("script", ["#!/bin/sh\necho no memory\nexit 1\n", "#!/bin/sh\necho no memory\n"])
def test_program_that_fails_or_writes_nothing_is_named_with_its_last_lines(tmp_path: Path, script: str) -> None:
    request, paths = request_of(tmp_path, PARTS)
    cache = Cache(tmp_path / "cache")
    with pytest.raises(ApplianceError) as caught:
        merge(request, paths, runtime_of(tmp_path, script), cache, ignore)
    assert (caught.value.code, caught.value.subject) == ("merge.failed", "model m")
    assert "no memory" in caught.value.found
    assert list((cache.root / "partial").iterdir()) == []


def test_result_that_is_no_model_is_not_kept(tmp_path: Path) -> None:
    request, paths = request_of(tmp_path, PARTS)
    cache = Cache(tmp_path / "cache")
    with pytest.raises(NotTrustedError, match=r"gguf\.refused"):
        merge(request, paths, runtime_of(tmp_path, result=b"no model"), cache, ignore)
    assert not list((cache.root / "sha256").glob("*/*"))


@pytest.mark.ci
def test_split_model_is_locked_merged_loaded_and_signed_with_its_step(tmp_path: Path) -> None:
    whole, program, cache = tmp_path / "whole.gguf", tmp_path / "program", shipped_cache()
    whole.write_bytes(servable(context=8192))
    program.mkdir()
    unpack_programs(shipped_runtime().path, program)
    split = [str(program / "llama-gguf-split"), "--split", "--split-max-tensors", "5", str(whole), str(tmp_path / "m")]
    subprocess.run(split, check=True, capture_output=True)
    files = sorted(path.name for path in tmp_path.glob("m-*.gguf"))
    assert len(files) > 1
    recipe = write_recipe(tmp_path, f"[{', '.join(f'file:{name}' for name in files)}]")
    previous = read_lock(lock_path(recipe))
    write_lock(lock_path(recipe), lock_recipe(load_recipe(recipe), recipe, cache, previous, now=NOW))
    workspace, _ = create_development(tmp_path / "workspace", NOW)
    built = assemble(recipe, workspace, cache, NOW, ignore)
    assert built.bundle is not None
    contents = built.bundle.value.contents
    [model], [wheel] = contents.models, contents.of_kind("runtime")
    cache.discard(contents.by_path[model.path].sha256)
    assert model.lineage.sha256 == sha256((tmp_path / files[0]).read_bytes())
    [step] = model.lineage.steps
    assert step.startswith(f"llama-gguf-split sha256:{wheel.sha256} --merge parts=sha256:")


@pytest.mark.ci
def test_real_program_gives_the_same_whole_model_each_time(tmp_path: Path) -> None:
    request, paths = request_of(tmp_path, split_parts(3))
    made = [merge(request, paths, shipped_runtime(), Cache(tmp_path / name), ignore) for name in ("one", "two")]
    assert made[0] == made[1]
    with Cache(tmp_path / "one").path(made[0].sha256).open("rb") as stream:
        header = read_header(stream, made[0].size, "merged")
    assert [tensor.name for tensor in header.tensors] == [name for name, _ in WHOLE]
    assert header.number("split.count") == 0
