"""A part of the real runtime, built again in another place by another user, has the bytes of the wheel in the cache.

`python -m tests.reproduce` builds all of it again and compares the whole wheel.
"""

from __future__ import annotations

import pytest

from tests.appliance.shipped import shipped_runtime
from tests.reproduce import differing, other_place, rebuild

pytestmark = [pytest.mark.ci, pytest.mark.timeout(1200)]
PART = ("ggml", "ggml-cpu-x64")


def test_second_build_by_another_user_elsewhere_gives_the_same_bytes() -> None:
    with other_place() as place:
        equal, other = differing(rebuild(place, ("x64",), PART), shipped_runtime().path)

    assert other == []
    assert {"libggml-base.so", "libggml.so", "libggml-cpu-x64.so"} <= set(equal)


def test_build_that_lets_the_name_of_its_folder_in_is_noticed() -> None:
    with other_place() as place:
        equal, other = differing(rebuild(place, ("x64",), ("ggml-base",), leak=True), shipped_runtime().path)

    assert "libggml-base.so" in other
