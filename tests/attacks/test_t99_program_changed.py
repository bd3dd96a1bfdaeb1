"""T99: the program of a bundle is exchanged after the check: on the medium, or in its folder on the host."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from bundles import bootstrap_set
from bundles.bootstrap_set import copy_bootstrap_set, own_wheel
from bundles.chunks.chunk import Chunk
from tests.attacks.harness import Stick, guard_off, hashes_off, make_stick, refused, row
from tests.bundles.bare_host.program import PYTHON, program_sources
from tests.toy import build_toy

ROW = row(99)
EVIL = b"print('hijacked')\n"


@pytest.fixture(scope="module")
def with_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    return build_toy(folder, extra=program_sources(folder), python=PYTHON)[1]


@pytest.fixture
def carried(with_program: Path, tmp_path: Path) -> Stick:
    return make_stick(with_program, tmp_path)


class SecondAnswer:
    """A medium that answers the verifier with what was signed, and then with other bytes of that length."""

    def __init__(self, stick: Stick, folder: Path) -> None:
        self.stick, self.folder = stick, folder

    def open_chunk(self, chunk: Chunk) -> int:
        descriptor = self.stick.layout.open_chunk(chunk)
        data = os.read(descriptor, chunk.size)
        os.close(descriptor)
        path = self.folder / "answer"
        path.write_bytes(data.replace(b"arguments", b"ARGUMENTS"))
        return os.open(path, os.O_RDONLY)


def test_unattacked_program_is_what_was_signed(carried: Stick, tmp_path: Path) -> None:
    folder = copy_bootstrap_set(carried.verify().value, carried.layout.open_chunk, tmp_path / "host")
    assert b'"arguments"' in (folder / "program/appliance/cli/main.py").read_bytes()


def test_attacked_by_a_medium_that_answers_the_second_read_differently(carried: Stick, tmp_path: Path) -> None:
    bundle = carried.verify().value
    medium = SecondAnswer(carried, tmp_path)
    wheel = own_wheel(bundle.contents)
    assert wheel is not None
    refused(
        ROW,
        lambda: copy_bootstrap_set(bundle, medium.open_chunk, tmp_path / "host"),
        "contents.file-changed",
        wheel.path,
    )
    assert list((tmp_path / "host").rglob("*.py")) == []


def test_attacked_in_the_folder_of_the_host_the_program_is_made_again(carried: Stick, tmp_path: Path) -> None:
    bundle = carried.verify().value
    folder = copy_bootstrap_set(bundle, carried.layout.open_chunk, tmp_path / "host")
    main = folder / "program/appliance/cli/main.py"
    main.write_bytes(EVIL)
    (folder / "program/json.py").write_bytes(EVIL)
    copy_bootstrap_set(bundle, carried.layout.open_chunk, tmp_path / "host")
    assert EVIL not in main.read_bytes()
    assert not (folder / "program/json.py").exists()


def test_attacked_by_a_folder_that_somebody_has_prepared_for_the_copy(carried: Stick, tmp_path: Path) -> None:
    bundle = carried.verify().value
    folder = bootstrap_set.bootstrap_folder(tmp_path / "host", bundle.manifest)
    partial = folder.with_name(f"{folder.name}.partial")
    (partial / "program").mkdir(parents=True)
    (partial / "program/json.py").write_bytes(EVIL)
    copy_bootstrap_set(bundle, carried.layout.open_chunk, tmp_path / "host")
    assert [path for path in folder.rglob("*.py") if EVIL in path.read_bytes()] == []


def test_unguarded_the_changed_bytes_meet_the_record_of_the_wheel(carried: Stick, tmp_path: Path) -> None:
    """With the hash of the copy off, the zip's own checksum and the signed RECORD still refuse."""
    bundle, medium = carried.verify().value, SecondAnswer(carried, tmp_path)
    with hashes_off("bundles.chunks.transfer"), pytest.raises(Exception, match="contents.file-changed") as caught:
        copy_bootstrap_set(bundle, medium.open_chunk, tmp_path / "host")
    assert getattr(caught.value, "exit_code", 0) == 3


def test_unguarded_the_changed_folder_would_run(carried: Stick, tmp_path: Path) -> None:
    bundle = carried.verify().value
    folder = copy_bootstrap_set(bundle, carried.layout.open_chunk, tmp_path / "host")
    (folder / "program/appliance/cli/main.py").write_bytes(EVIL)
    shutil.rmtree(carried.path)
    with guard_off(ROW.guard, lambda *_: True):
        copy_bootstrap_set(bundle, carried.layout.open_chunk, tmp_path / "host")
    assert (folder / "program/appliance/cli/main.py").read_bytes() == EVIL
