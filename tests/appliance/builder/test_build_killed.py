"""A build that is killed, damaged or repeated: under the bundle's name there is a whole one or none."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from appliance.builder.chunking.bundle_writer import BundleWriter, remove_bundle
from appliance.builder.chunking.chunker import Source
from bundles.bundle import open_bundle
from bundles.chunks.check import check_blobs
from bundles.oci.layout import Layout, blob_path
from bundles.oci.manifest import parse_index_of_one, parse_manifest
from signing.floors import Floors
from tests.toy import NOW, build_toy

pytestmark = pytest.mark.ci

FORK = multiprocessing.get_context("fork")
NOBODY = 65534
TOUCHES = {"open", "os.rename", "os.link", "os.chmod", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}
"""Events of Python's audit hooks: between any two of these, nothing on the disk changes but a file's bytes."""


def in_child(work: Callable[[], object], *, as_nobody: bool = False) -> multiprocessing.process.BaseProcess:
    def start() -> None:
        if as_nobody and os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        work()

    child = FORK.Process(target=start)
    child.start()
    return child


def check(folder: Path) -> None:
    found = open_bundle(folder / "dist/toy-1.0.0", (folder / "trust/root.json").read_bytes(), Floors(), NOW)
    check_blobs(Layout(folder / "dist/toy-1.0.0"), found.value)


def extra(seed: int) -> list[Source]:
    noise = random.Random(seed)
    return [Source(f"licences/{number}", "licence", data=noise.randbytes(20_000)) for number in range(60)]


def run_until(event: int, work: Callable[[], object], count_file: Path) -> int | None:
    """Run something in a child that is killed when it touches a file for the `event`-th time.

    Returns:
        -9 where it was killed, else 0; then `count_file` holds how often it touched one.
    """
    count = [0]

    def hook(name: str, _arguments: object) -> None:
        if name in TOUCHES:
            count[0] += 1
            if count[0] == event:
                os.kill(os.getpid(), signal.SIGKILL)

    def start() -> None:
        sys.addaudithook(hook)
        work()
        count_file.write_text(str(count[0]))

    child = in_child(start)
    child.join()
    return child.exitcode


@pytest.mark.parametrize("before", ["nothing", "another version of it"])
def test_a_build_that_is_killed_at_any_instant_leaves_no_bundle_that_looks_finished(
    tmp_path: Path, before: str
) -> None:
    count_file, noise = tmp_path / "count", random.Random(before)
    build_toy(tmp_path / "reference", extra=extra(1))
    build = partial(build_toy, tmp_path / "killed", extra=extra(1))
    index = "dist/toy-1.0.0/index.json"

    def prepare() -> None:
        shutil.rmtree(tmp_path / "killed", ignore_errors=True)
        if before != "nothing":
            build_toy(tmp_path / "killed", note=before)

    prepare()
    assert run_until(0, build, count_file) == 0
    events = int(count_file.read_text())
    assert events > 100
    killed = 0
    ended: int | None = 0
    for number, event in enumerate(noise.sample(range(1, events), 24)):
        if number % 6 == 0 or ended == 0:
            prepare()
        ended = run_until(event, build, count_file)
        killed += ended == -9
        if (tmp_path / "killed" / index).exists():
            # The old or the new one, whole: signatures may be those of the other, which the next run puts right.
            layout = Layout((tmp_path / "killed" / index).parent)
            named = parse_index_of_one((layout.path / "index.json").read_bytes())
            manifest = parse_manifest(layout.medium.read(blob_path(named.sha256), named.size) or b"")
            assert {name: (layout.path / blob_path(name)).stat().st_size for name in manifest.blobs} == manifest.blobs
    assert killed >= 12  # a run that continues another touches less, and may end before its instant comes
    assert run_until(0, build, count_file) == 0
    check(tmp_path / "killed")
    assert {path.name for path in (tmp_path / "killed/dist").iterdir()} == {"toy-1.0.0"}
    assert (tmp_path / "killed" / index).read_bytes() == (tmp_path / "reference" / index).read_bytes()


def test_what_a_kill_left_is_compared_before_it_counts(tmp_path: Path) -> None:
    writer = BundleWriter(tmp_path / "x-1")
    right, wrong, short = (writer.put(data) for data in (b"right", b"wrong", b"short"))
    blobs = tmp_path / ".x-1.making/blobs/sha256"
    (blobs / wrong.sha256).write_bytes(b"wrenk")
    (blobs / short.sha256).write_bytes(b"sho")
    kept = (blobs / right.sha256).stat().st_mtime_ns
    again = BundleWriter(tmp_path / "x-1")
    for data in (b"right", b"wrong", b"short"):
        again.put(data)
    assert again.written == 2
    assert (blobs / right.sha256).stat().st_mtime_ns == kept
    assert {path.read_bytes() for path in blobs.iterdir()} == {b"right", b"wrong", b"short"}


def test_a_finished_bundle_is_sealed_and_an_ordinary_user_can_repair_replace_and_remove_it() -> None:
    # Below pytest's own folders nobody else may go.
    folder = Path(tempfile.mkdtemp(prefix="sealed-"))
    folder.chmod(0o777)

    def live() -> None:
        _, bundle = build_toy(folder / "w", sealed=True)
        blobs = bundle / "blobs/sha256"
        assert blobs.stat().st_mode & 0o7777 == 0o555
        assert {path.stat().st_mode & 0o7777 for path in blobs.iterdir()} == {0o444}
        with pytest.raises(PermissionError):
            (blobs / "new").write_bytes(b"x")
        some = next(blobs.iterdir())
        with pytest.raises(PermissionError):
            some.write_bytes(b"x")
        some.chmod(0o644)
        some.write_bytes(b"damaged")
        build_toy(folder / "w", sealed=True)  # repaired
        check(folder / "w")
        build_toy(folder / "w", note="another", sealed=True)  # replaced
        check(folder / "w")
        assert blobs.stat().st_mode & 0o7777 == 0o555
        remove_bundle(bundle)
        assert not list((folder / "w/dist").iterdir())

    child = in_child(live, as_nobody=True)
    child.join()
    shutil.rmtree(folder)
    assert child.exitcode == 0


def test_a_sealed_bundle_is_copied_and_the_copy_is_an_ordinary_folder_to_a_stick(tmp_path: Path) -> None:
    workspace, bundle = build_toy(tmp_path / "w", sealed=True)
    shutil.copytree(bundle, tmp_path / "copy")
    found = open_bundle(tmp_path / "copy", workspace.root_file.read_bytes(), Floors(), NOW)
    check_blobs(Layout(tmp_path / "copy"), found.value)
