"""T111: a stick that is unmounted while it is written, so that the rest lands on the machine's own disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from bundles.oci.layout import BLOB_FOLDER, Layout
from bundles.progress import Progress
from bundles.stick.writing import blob_batches
from bundles.stick.writing.blob_batches import write_blobs
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.bundles.stick.disks import mounted_disk

ROW = row(111)


@pytest.fixture(autouse=True)
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_batches, "BATCH_BLOBS", 1)
    monkeypatch.setattr(blob_batches, "WRITING_THREADS", 1)


def write(stick: Stick, disk: Path, unmounts: bool) -> Sequence[str]:
    """Write all blobs; after the third one, somebody may unmount the stick."""
    written = 0

    def on_progress(_event: Progress) -> None:
        nonlocal written
        written += 1
        if unmounts and written == 3:
            subprocess.run(("umount", "-l", disk), check=True)
            (disk / BLOB_FOLDER).mkdir(parents=True)

    write_blobs(stick.layout, Layout(disk), stick.open().value.blobs, on_progress)
    return os.listdir(disk / BLOB_FOLDER)


def test_unattacked_the_blobs_land_on_the_stick(stick: Stick, tmp_path: Path) -> None:
    with mounted_disk(tmp_path) as disk:
        assert len(write(stick, disk, unmounts=False)) == len(stick.open().value.blobs)


def test_attacked_nothing_lands_on_the_machine(stick: Stick, tmp_path: Path) -> None:
    with mounted_disk(tmp_path) as disk:
        refused(ROW, lambda: write(stick, disk, unmounts=True), "write.failed", str(disk))
        assert not os.path.ismount(disk)
        assert os.listdir(disk / BLOB_FOLDER) == []


def test_unguarded_the_rest_lands_on_the_machine(stick: Stick, tmp_path: Path) -> None:
    with mounted_disk(tmp_path) as disk, guard_off(ROW.guard, lambda *_: None):
        assert write(stick, disk, unmounts=True)
        assert not os.path.ismount(disk)
