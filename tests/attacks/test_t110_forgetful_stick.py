"""T110: a fake or worn stick that does not keep what is written to it, and is handed over as good."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundles.oci.layout import blob_path
from bundles.stick.writing.filling import Written
from bundles.stick.writing.writer import write_stick
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.sim.sticks import SimStick

ROW = row(110)


@pytest.fixture
def fake(tmp_path: Path) -> SimStick:
    (tmp_path / "fake").mkdir()
    return SimStick(tmp_path / "fake")


def write(stick: Stick, fake: SimStick) -> Written:
    with fake.plugged():
        return write_stick(stick.layout, stick.open(), fake.root)


def forget(stick: Stick, fake: SimStick, keeps_small_files: bool) -> None:
    """Whatever is written is read as zeros."""
    blobs = stick.open().value.blobs
    paths = [blob_path(chunk.sha256) for chunk in blobs[2:]] if keeps_small_files else ["index.json"]
    for path in paths:
        fake.give(path, b"\0" * 10)


def test_unattacked_stick_is_written_once_and_reads_back(stick: Stick, fake: SimStick) -> None:
    written = write(stick, fake)
    assert written.blobs == len(stick.open().value.blobs) == written.checked.blobs


@pytest.mark.parametrize("blobs", [True, False], ids=["blobs", "the index"])
def test_attacked_what_is_not_given_back_is_written_again_and_then_refused(
    stick: Stick, fake: SimStick, blobs: bool
) -> None:
    forget(stick, fake, blobs)
    error = refused(ROW, lambda: write(stick, fake), "stick.does-not-keep", str(fake.root))
    assert "f3write" in error.hint


def test_unguarded_a_stick_that_keeps_nothing_counts_as_written(stick: Stick, fake: SimStick) -> None:
    forget(stick, fake, True)
    with guard_off(ROW.guard, lambda *_: None):
        assert write(stick, fake).is_proven
