"""Programs and libraries of an engine belong to the owner of the release, and nobody else may exchange them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.host.release.release import Release
from appliance.host.release.release_check import check_engine_files, check_runtime
from signing.errors import DriftError
from tests.appliance.sim_host import new_host


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return new_host(tmp_path).install()


def test_runtime_as_it_was_extracted_is_right(release: Release) -> None:
    check_engine_files(release)


def give_away_folder(release: Release) -> str:
    os.chown(release.runtime, 4242, -1)
    return "runtime"


def give_away_library(release: Release) -> str:
    name = sorted(os.listdir(release.runtime))[0]
    os.chown(release.runtime / name, 4242, -1)
    return f"runtime/{name}"


def open_folder(release: Release) -> str:
    release.runtime.chmod(0o775)
    return "runtime"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("attack", [give_away_folder, give_away_library, open_folder])
def test_runtime_that_another_user_could_change_is_refused_and_made_anew(
    release: Release, attack: Callable[[Release], str]
) -> None:
    subject = attack(release)
    with pytest.raises(DriftError) as caught:
        check_engine_files(release)
    assert (caught.value.code, caught.value.subject) == ("runtime.owner", subject)
    # An install extracts it again where this finds anything.
    assert check_runtime(release.runtime, release.contents, release.facts.cpu_variant)
