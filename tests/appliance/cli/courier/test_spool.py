"""A folder that a data diode is filling: a check waits for files in any order, or lists what is missing."""

from __future__ import annotations

import random
import shutil
import threading
import time
from pathlib import Path

import pytest

from bundles.bundle import open_bundle
from bundles.stick.ranges import parse_ranges
from signing.floors import Floors
from tests.attacks.harness import command
from tests.toy import NOW, build_toy


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    workspace, path = build_toy(tmp_path_factory.mktemp("workspace"))
    return workspace.root_file, path


def receive(sent: Path, spool: Path, names: list[str]) -> None:
    """Let files arrive as a receiver writes them: under a name that ends in `.part`, then under their own."""
    for name in names:
        place = spool / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sent / name, place.with_name(f"{place.name}.part"))
        place.with_name(f"{place.name}.part").rename(place)


def files(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


@pytest.mark.parametrize("seed", [1, 2])
def test_verify_waits_for_files_in_any_order_and_changes_none(
    made: tuple[Path, Path], tmp_path: Path, seed: int
) -> None:
    root, sent = made
    spool = tmp_path / "spool"
    spool.mkdir()
    names = files(sent)
    random.Random(seed).shuffle(names)
    (spool / "blobs/sha256").mkdir(parents=True)
    receive(sent, spool, names[: len(names) // 2])
    (spool / "blobs/sha256/0123.part").write_bytes(b"half of a fi")

    def rest() -> None:
        time.sleep(0.2)
        receive(sent, spool, names[len(names) // 2 :])
        (spool / "blobs/sha256/0123.part").unlink()

    thread = threading.Thread(target=rest)
    thread.start()
    try:
        answer = command("verify", str(spool), "--trust", root, "--wait")
    finally:
        thread.join()
    assert answer.code == 0, answer.talk
    assert files(spool) == files(sent)


def test_what_was_lost_on_the_line_is_read_out_by_numbers(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, sent = made
    bundle = open_bundle(sent, root.read_bytes(), Floors(), NOW).value
    lost = (bundle.blobs[3], bundle.blobs[7])
    spool = shutil.copytree(sent, tmp_path / "spool")
    for chunk in lost:
        (spool / f"blobs/sha256/{chunk.sha256}").unlink()
    answer = command("stick", "check", str(spool), "--trust", root)
    assert answer.code in (3, 5)
    [line] = [line for line in answer.out.splitlines() if line.startswith("read out")]
    assert parse_ranges(line.removeprefix("read out"), bundle) == lost
