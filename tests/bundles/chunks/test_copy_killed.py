"""A copy that is killed at any instant is finished by the next run, which copies no chunk again that was there."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundles.chunks.copy import copy_files
from bundles.chunks.work_file import CopyJob
from signing.digest import Digest
from tests.appliance.builder.test_build_killed import in_child
from tests.sim.sets.stick_sets import SetFiles, StickSet, deal, make_files, right_chunks

KILLS = int(os.environ.get("KILLS", "15"))  # `make soak` takes more
SEED = 20260103
UNIT = (128 << 10) + 32
FILES, CHUNKS = 4, 6
MOST_IN_FLIGHT = max(2, os.cpu_count() or 2)
"""Each thread of a copy has one chunk in its hands."""
CALLS = ("pwrite", "pwritev", "fsync", "fdatasync", "replace", "rename", "ftruncate", "truncate")
"""Between any two of these, nothing on the disk changes."""


def some_files() -> SetFiles:
    noise = random.Random(SEED)
    return make_files([noise.randbytes(CHUNKS * UNIT - number) for number in range(FILES)], UNIT)


class Copy:
    """One host's folder, a stick, and a record of each chunk that was opened, which outlives a kill."""

    def __init__(self, folder: Path, of: SetFiles) -> None:
        self.of, self.host, self.record = of, folder / "host", folder / "opened"
        self.host.mkdir()
        self.stick = StickSet(deal(folder, of, {chunk.sha256: (0,) for chunk in of.chunks}, 1), 1)

    def run(self) -> None:
        """Copy all files, and write down which chunk is opened."""
        self.record.write_bytes(b"")
        real = self.stick.open_chunk

        def open_chunk(chunk: Any) -> int:
            with self.record.open("a") as stream:
                stream.write(f"{chunk.sha256}\n")
            return real(chunk)

        self.stick.open_chunk = open_chunk  # type: ignore[method-assign]
        copy_files([CopyJob(file, self.host / Path(file.path).name) for file in self.of.files], self.stick)

    @property
    def opened(self) -> set[Digest]:
        """The chunks that the last run opened."""
        return {Digest(line) for line in self.record.read_text().splitlines()}


def run_killed(event: int, work: Callable[[], object], count_file: Path) -> int | None:
    """Run something in a child that is killed just before it changes the disk for the `event`-th time."""
    count = [0]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            count[0] += 1
            if count[0] == event:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **more)

        return call

    def start() -> None:
        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        work()
        count_file.write_text(str(count[0]))

    child = in_child(start)
    child.join()
    return child.exitcode


@pytest.mark.timeout(60 + 4 * KILLS)
def test_killed_at_any_instant_it_goes_on_with_what_was_in_flight(tmp_path: Path) -> None:
    of = some_files()
    (tmp_path / "whole").mkdir()
    assert run_killed(0, Copy(tmp_path / "whole", of).run, tmp_path / "count") == 0
    events = int((tmp_path / "count").read_text())
    assert events >= FILES * CHUNKS
    noise = random.Random(SEED)
    for number in range(KILLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        copy = Copy(folder, of)
        event = 1 + int((number + noise.random()) * events / KILLS)
        assert run_killed(event, copy.run, tmp_path / "count") == -signal.SIGKILL
        right = right_chunks(of, copy.host)
        assert len(copy.opened - right) <= MOST_IN_FLIGHT, f"killed at event {event} of {events}"
        copy.run()
        assert copy.opened.isdisjoint(right), f"killed at event {event} of {events}"
        for file in of.files:
            assert (copy.host / Path(file.path).name).read_bytes() == of.bytes_of(file)
        assert sorted(os.listdir(copy.host)) == sorted(Path(file.path).name for file in of.files)
