"""What a whole build takes of memory, as a process of its own."""

from __future__ import annotations

import pytest

from tests.appliance.big_build import MOST_BYTES, ONE_GIB, big_model, measured

pytestmark = [pytest.mark.ci, pytest.mark.timeout(900)]


def test_build_of_a_model_of_one_gib_takes_at_most_250_mb_and_all_its_chunks_are_distinct() -> None:
    with big_model(ONE_GIB) as model:
        assert model.size_bytes > 1 << 30
        built = model.build()
        assert built.code == 0, built.err
        [file] = model.opened().contents.of_kind("model")
        assert len({chunk.sha256 for chunk in file.chunks}) == len(file.chunks) > 16
        assert built.peak_bytes <= MOST_BYTES
        # What is measured is the process: it is never less than what its buffers alone must take.
        assert built.peak_bytes > 128 << 20
    assert measured("--version").peak_bytes < 64 << 20
