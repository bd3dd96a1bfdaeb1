"""A folder that a data diode is filling: a check waits for files in any order, or lists what is missing."""

from __future__ import annotations

import random
import shutil
import threading
import time
from pathlib import Path

import pytest

from bundles.attestation.required_statements import SBOM
from bundles.bundle import open_bundle
from bundles.stick.mounts import MountWatch
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


@pytest.mark.parametrize("late", ["bill", "list"])
def test_inspect_waits_for_the_list_and_the_bills_and_for_nothing_else(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    root, sent = made
    bundle = open_bundle(sent, root.read_bytes(), Floors(), NOW).value
    files_of = bundle.contents.by_path
    model = f"blobs/sha256/{bundle.contents.of_kind('model')[0].chunks[-1].sha256}"
    bill = f"blobs/sha256/{files_of[SBOM.path].chunks[0].sha256}"
    names = [name for name in files(sent) if name != model]
    last = [bill if late == "bill" else "index.json"]
    receive(sent, tmp_path / "spool", [name for name in names if name not in last])
    monkeypatch.setattr(MountWatch, "wait", lambda _: receive(sent, tmp_path / "spool", last))
    answer = command("inspect", str(tmp_path / "spool"), "--trust", root, "--wait")
    assert answer.code == 0, answer.talk
    assert "waiting for " in answer.talk
    assert answer.out == command("inspect", sent, "--trust", root).out


def test_inspect_without_waiting_shows_what_is_here(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, sent = made
    bundle = open_bundle(sent, root.read_bytes(), Floors(), NOW).value
    spool = shutil.copytree(sent, tmp_path / "spool")
    (spool / f"blobs/sha256/{bundle.contents.by_path[SBOM.path].chunks[0].sha256}").unlink()
    answer = command("inspect", str(spool), "--trust", root)
    assert (answer.code, "the bills of this bundle are not on this medium" in answer.talk) == (0, True)


def test_list_for_a_scanning_station_is_about_now(made: tuple[Path, Path]) -> None:
    assert command("inspect", str(made[1]), "--trust", made[0], "--kiosk", "--wait").code == 2


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
