"""Builds that go wrong: killed builds, a full disk, sources that are gone or changed, an impatient Ctrl-C."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from appliance.builder.lock.lockfile import lock_path, read_lock
from tests.appliance.big_build import TEMPLATE, write_recipe
from tests.appliance.builder.test_build_reproducible import differences
from tests.appliance.shipped import RECIPE, shipped_cache, shipped_runtime
from tests.elsewhere import elsewhere
from tests.journeys.conftest import PROGRAM, Demo, Finished, appliance, snapshot
from tests.sim.gguf_models import Shape, write_model

pytestmark = [pytest.mark.ci, pytest.mark.timeout(900)]

SMALL = Shape("llama", 2, 256, 4, 2, 64, 512, 2000)
NAME = "big-1.0.0"


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe of a model that lies beside it, its lock, and a workspace; one test after the other."""
    tmp_path = tmp_path_factory.mktemp("mine")
    write_model(tmp_path / "mine.gguf", SMALL, seed=3, template=TEMPLATE)
    recipe = write_recipe(tmp_path, "file:mine.gguf")
    for words in (("lock", recipe), ("init", tmp_path / "w")):
        done = appliance(*words)
        assert done.code == 0, done.err
    return tmp_path


def build(folder: Path, *more: str) -> Finished:
    return appliance("build", folder / "big.yaml", "--workspace", folder / "w", *more)


def blobs(making: Path, count: int) -> Callable[[], bool]:
    """Whether so many blobs are written."""

    def is_reached() -> bool:
        try:
            return len(os.listdir(making / "blobs/sha256")) >= count
        except FileNotFoundError:
            return False

    return is_reached


def stop_when(is_reached: Callable[[], bool], argv: list[str], number: signal.Signals) -> int:
    """Start the program in a group of its own, and send the whole group a signal at an instant."""
    child = subprocess.Popen(
        [*PROGRAM, *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while child.poll() is None and not is_reached():
        time.sleep(0.001)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, number)
    return child.wait(timeout=120)


def test_build_that_is_killed_leaves_nothing_that_looks_finished_and_the_next_one_is_the_same(
    demo: Demo, tmp_path: Path
) -> None:
    workspace = tmp_path / "w"
    assert appliance("init", workspace).code == 0
    final, making = workspace / "dist/smollm2-1.0.0", workspace / "dist/.smollm2-1.0.0.making"
    whole = len(os.listdir(demo.bundle / "blobs/sha256"))
    some = sorted(random.Random(20260706).sample(range(2, whole - 2), 2))
    published = workspace / "trust/repository/metadata/2.targets.json"
    instants = [*(blobs(making, count) for count in some), published.exists, final.exists]
    argv = ["build", str(RECIPE), "--workspace", str(workspace)]
    killed = 0
    for is_reached in instants:
        killed += stop_when(is_reached, argv, signal.SIGKILL) == -signal.SIGKILL
        verified = appliance("verify", final, "--workspace", workspace)
        # Under its name stands nothing, or all of it: the rename may have come first.
        assert verified.code == (0 if final.exists() else 2), verified.err
    assert killed >= 3
    done = appliance(*argv, "--json")
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert differences(final, demo.bundle) == {}
    assert answer["files_written"] < whole  # what a killed run wrote is used, after it was compared
    assert [path.name for path in (workspace / "dist").iterdir()] == [final.name]


def test_ctrl_c_is_answered_with_130_and_no_bundle(mine: Path) -> None:
    argv = ["build", str(mine / "big.yaml"), "--workspace", str(mine / "w")]
    code = stop_when(blobs(mine / f"w/dist/.{NAME}.making", 3), argv, signal.SIGINT)
    assert code == 130
    assert not (mine / "w/dist" / NAME).exists()
    before = snapshot(mine / "w/trust")
    assert not [name for name in before if "2.targets" in name]


def test_full_disk_is_an_error_with_the_missing_bytes_and_nothing_is_published(mine: Path) -> None:
    namespace = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=9m none "$0" && exec "$@"', str(mine / "w/dist")]
    (mine / "w/dist").mkdir(exist_ok=True)
    if subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no mount in a user namespace")
    before = snapshot(mine / "w/trust/repository")
    argv = [*PROGRAM, "build", str(mine / "big.yaml"), "--workspace", str(mine / "w")]
    look = ["sh", "-c", f'"$@"; code=$?; ls -A {mine}/w/dist; exit $code', "sh"]
    done = subprocess.run([*namespace, *look, *argv], capture_output=True, text=True, timeout=280)
    assert done.returncode == 1, done.stderr
    assert done.stdout.split() == [f".{NAME}.making"]
    assert "(disk.full)" in done.stderr
    assert "bytes more" in done.stderr
    assert "hint: free some space there and run the same command again" in done.stderr
    assert snapshot(mine / "w/trust/repository") == before


def test_source_that_is_gone_or_changed_is_named_and_nothing_is_published(mine: Path) -> None:
    model, before = mine / "mine.gguf", snapshot(mine / "w/trust/repository")
    whole = model.read_bytes()
    model.unlink()
    gone = build(mine)
    assert (gone.code, "source.missing" in gone.err, "file:mine.gguf" in gone.err) == (2, True, True)
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    changed = build(mine)
    assert changed.code == 3
    assert "models/big/mine.gguf: differs from lock (source.differs-from-lock)" in changed.err
    assert f"where the change is intended: appliance lock {mine / 'big.yaml'} --upgrade" in changed.err
    assert not (mine / "w/dist" / NAME).exists()
    assert snapshot(mine / "w/trust/repository") == before
    model.write_bytes(whole)
    assert build(mine).code == 0


def test_shipped_recipe_of_another_user_elsewhere_has_the_same_digest(demo: Demo) -> None:
    with elsewhere() as place:
        copy_cache(place.work / "cache")
        shutil.copy(RECIPE, place.work)
        shutil.copy(lock_path(RECIPE), place.work)
        place.give(place.work)
        env = {"AIRGAP_APPLIANCE_CACHE": str(place.work / "cache")}
        workspace = place.work / "workspace"
        place.run("appliance.cli.main", "init", workspace)
        place.run("appliance.cli.main", "build", place.work / RECIPE.name, "--workspace", workspace, env=env)
        found = differences(demo.bundle, workspace / "dist/smollm2-1.0.0")
        assert {name: str(error) for name, error in found.items()} == {}


def copy_cache(folder: Path) -> None:
    """What the cache holds for the shipped recipe, for somebody who may not write to it."""
    cache = shipped_cache()
    for entry in read_lock(lock_path(RECIPE)).entries:
        path = cache.path(entry.used.sha256)
        copy = folder / path.relative_to(cache.root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    runtime = shipped_runtime().path.parent
    for path in (runtime, cache.folder("proof"), cache.folder("searched")):
        shutil.copytree(path, folder / path.relative_to(cache.root))
