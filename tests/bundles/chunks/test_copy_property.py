"""Whatever lay there before, a copy ends with the signed bytes or with an error, and the next run finishes it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundles.chunks.copy import copy_files
from bundles.chunks.source import Seed
from bundles.chunks.work_file import CopyJob
from signing.errors import ApplianceError
from tests.bundles.chunks.shelf import file_of, seed, shelf

SIZES = st.sampled_from([0, 1, 2, 4095, 4096, 4097, 8192])
STATES = st.sampled_from(["absent", "right", "wrong", "short", "long"])


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.lists(SIZES.filter(bool), max_size=4), min_size=1, max_size=3),
    final=STATES,
    leftover=STATES,
    held=STATES,
    lost=st.sets(st.integers(0, 11), max_size=2),
    damaged=st.sets(st.integers(0, 11), max_size=2),
    full_at=st.none() | st.integers(0, 12),
)
def test_outcome_is_the_signed_bytes_or_an_error_and_the_next_run_finishes(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[list[int]],
    final: str,
    leftover: str,
    held: str,
    lost: set[int],
    damaged: set[int],
    full_at: int | None,
) -> None:
    folder = tmp_path_factory.mktemp("copy")
    parts = [[os.urandom(size) for size in row] for row in sizes]
    files = [file_of(str(number), *row) for number, row in enumerate(parts)]
    jobs = [CopyJob(file, folder / file.path) for file in files]
    whole = b"".join(parts[0])
    put(folder / "0", whole, final)
    put(folder / "0.partial", whole, leftover)
    put(folder / "old", whole, held)
    seeds = seed(folder / "other", *parts[0])
    seeds = {digest: (Seed(folder / "old", places[0].offset),) for digest, places in seeds.items()}
    medium = shelf(folder / "stick", *(part for row in parts for part in row))
    blobs = sorted(os.listdir(medium.folder))
    for number in damaged:
        if number < len(blobs):
            path = medium.folder / blobs[number]
            path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    for number in lost:
        if number < len(blobs):
            (medium.folder / blobs[number]).unlink()
    try:
        with full_disk(full_at):
            copy_files(jobs, medium, seeds)
    except ApplianceError:
        for job, row in zip(jobs, parts, strict=True):
            if job.file.path != "0" or final == "absent":
                assert not job.destination.exists() or job.destination.read_bytes() == b"".join(row)
    else:
        assert [job.destination.read_bytes() for job in jobs] == [b"".join(row) for row in parts]
    # The medium is written anew.
    copy_files(jobs, shelf(folder / "new", *(part for row in parts for part in row)), seeds)
    assert [job.destination.read_bytes() for job in jobs] == [b"".join(row) for row in parts]
    assert not list(folder.glob("*.partial"))


def put(path: Path, data: bytes, state: str) -> None:
    """What lies at a path before the copy."""
    states = {"right": data, "wrong": bytes(byte ^ 1 for byte in data), "short": data[:-1], "long": data + b"x"}
    if state in states:
        path.write_bytes(states[state])


@contextmanager
def full_disk(writes: int | None) -> Iterator[None]:
    """For the length of the block, only so many writes find room; None for all."""
    real, left = os.pwrite, writes

    def pwrite(descriptor: int, data: bytes, at: int) -> int:
        nonlocal left
        if left is not None:
            if left == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            left -= 1
        return real(descriptor, data, at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        yield
