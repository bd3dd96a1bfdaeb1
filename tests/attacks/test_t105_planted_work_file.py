"""T105: a link or a second name lies where a copy makes its work file, so that it would write into another file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bundles.chunks.chunk import Chunk
from bundles.chunks.copy import copy_file
from bundles.contents.contents import File
from signing.digest import sha256
from tests.attacks.harness import guard_off, refused, row

ROW = row(105)
DATA = b"the signed bytes"
FILE = File("config/a.json", "config", 0o644, len(DATA), sha256(DATA), (Chunk(sha256(DATA), len(DATA)),))
PRECIOUS = b"precious, and longer than what is copied"


def copied(folder: Path) -> bytes:
    (folder / "blob").write_bytes(DATA)
    copy_file(FILE, lambda _chunk: os.open(folder / "blob", os.O_RDONLY), folder / "a.json")
    return (folder / "a.json").read_bytes()


def test_unattacked_leftover_of_an_earlier_run_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "a.json.partial").write_bytes(PRECIOUS)
    assert copied(tmp_path) == DATA


@pytest.mark.parametrize("kind", ["link", "second name", "fifo", "folder"])
def test_attacked_by_what_lies_in_the_place_of_the_work_file(tmp_path: Path, kind: str) -> None:
    precious, planted = tmp_path / "precious", tmp_path / "a.json.partial"
    precious.write_bytes(PRECIOUS)
    if kind == "link":
        planted.symlink_to(precious)
    elif kind == "second name":
        planted.hardlink_to(precious)
    elif kind == "fifo":
        os.mkfifo(planted)
    else:
        planted.mkdir()
    refused(ROW, lambda: copied(tmp_path), "file.hostile", str(planted))
    assert precious.read_bytes() == PRECIOUS
    assert not (tmp_path / "a.json").exists()


def test_unguarded_the_other_file_is_overwritten(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(PRECIOUS)
    (tmp_path / "a.json.partial").symlink_to(precious)
    with guard_off(ROW.guard, lambda path: os.open(path, os.O_RDWR)):
        copied(tmp_path)
    assert precious.read_bytes() == DATA
