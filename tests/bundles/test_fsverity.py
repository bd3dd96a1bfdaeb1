"""The digest that we compute is the one that the kernel measures."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import pytest

from bundles.fsverity import VerityHasher, digest_of

SIZES = [0, 1, 4095, 4096, 4097, 128 * 4096, 128 * 4096 + 1, 3_000_000]
EMPTY = "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"


def body(size: int) -> bytes:
    return bytes(at * 31 % 253 for at in range(min(size, 100_000))) * (size // 100_000 + 1)


def test_digest_of_an_empty_file_is_the_known_one() -> None:
    assert VerityHasher().digest() == EMPTY


@pytest.mark.parametrize("size", SIZES)
def test_any_split_of_the_bytes_gives_the_same_digest(size: int) -> None:
    data = body(size)[:size]
    whole = digest_of(io.BytesIO(data), size)
    hasher = VerityHasher()
    for at in range(0, size, 1000):
        hasher.update(data[at : at + 1000])
    assert hasher.digest() == whole


@pytest.mark.parametrize("size", SIZES)
def test_digest_equals_that_of_the_fsverity_program(size: int, tmp_path: Path) -> None:
    program = shutil.which("fsverity")
    if program is None:
        pytest.skip("the program fsverity is not installed (apt-get install fsverity)")
    path = tmp_path / "file"
    path.write_bytes(body(size)[:size])
    printed = subprocess.run(
        [program, "digest", "--compact", str(path)], capture_output=True, text=True, check=True
    ).stdout
    assert printed.split()[0].removeprefix("sha256:") == digest_of(io.BytesIO(path.read_bytes()), size)
