"""Bundles made by every version before this one still verify, and are carried on.

`toy-VERSION.tar.xz` holds `dist/toy-1.0.0` and its `trust/root.json`, as the program of that VERSION wrote them.
It is the toy bundle of `tests/toy.py`, sealed. A new version adds a file and changes none.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from appliance.cli.console.terminal import Terminal
from appliance.cli.main import run

HERE = Path(__file__).parent
MAX_BYTES = 64 << 10
ARCHIVES = sorted(HERE.glob("toy-*.tar.xz"))


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name)
def released(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder that holds `dist/` and `trust/` of one version."""
    with tarfile.open(request.param) as archive:
        for member in archive:
            path = tmp_path / member.name
            assert path.resolve().is_relative_to(tmp_path)
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            data = archive.extractfile(member)
            assert data is not None
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.read())
    return tmp_path


def appliance(*arguments: object) -> int:
    return run([str(one) for one in arguments], Terminal())


def test_bundle_verifies_to_its_last_byte(released: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert appliance("verify", released / "dist/toy-1.0.0", "--trust", released / "trust/root.json") == 0
    assert "every byte is what was signed" in capfd.readouterr().out


def test_bundle_with_a_changed_byte_is_damaged(released: Path) -> None:
    blob = max((released / "dist/toy-1.0.0/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    assert appliance("verify", released / "dist/toy-1.0.0", "--trust", released / "trust/root.json") == 3


def test_bundle_is_inspected_and_written_to_a_stick(released: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trust = ("--trust", released / "trust/root.json")
    assert appliance("inspect", released / "dist/toy-1.0.0", *trust, "--json") == 0
    assert json.loads(capfd.readouterr().out)["name"] == "toy"
    stick = released / "stick"
    stick.mkdir()
    assert appliance("stick", "write", released / "dist/toy-1.0.0", stick, *trust) == 0
    shutil.rmtree(released / "dist")
    assert appliance("verify", stick, *trust) == 0


def test_archives_are_there_and_small() -> None:
    assert ARCHIVES
    assert [path.name for path in ARCHIVES if path.stat().st_size > MAX_BYTES] == []
