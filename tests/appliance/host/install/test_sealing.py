"""An install seals what it has compared, says why a file has no seal, and clears incidents of right files alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from appliance.host.install.sealing import forget_stopped_models, seal_models, seal_runtime, seal_warnings
from appliance.host.models.incident import BYTES, incident_file, make_incident, record_incident
from appliance.host.models.seal import NO_FEATURE, SEALED, measure
from appliance.host.models.served_file import E4, open_verified
from appliance.host.release.release import Release
from tests.appliance.sim_host import new_host
from tests.appliance.sim_verity import SimVerity
from tests.toy import NOW


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return new_host(tmp_path_factory.mktemp("sealing")).install()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> SimVerity:
    return SimVerity(monkeypatch)


def test_models_are_sealed_and_served_at_the_highest_level(release: Release, kernel: SimVerity) -> None:
    outcomes = seal_models(release.prefix, release.path, release.contents)
    assert {path: one.outcome for path, one in outcomes.items()} == {"models/toy/toy.gguf": SEALED}
    assert list(seal_warnings(outcomes)) == []
    file, path = release.model_file(release.contents.models[0])
    with open_verified(file, path) as served:
        assert served.level == E4


def test_second_install_seals_nothing_anew(release: Release, kernel: SimVerity) -> None:
    for _ in range(2):
        seal_models(release.prefix, release.path, release.contents)
    assert kernel.enabled == 1


def test_programs_and_libraries_are_sealed(release: Release, kernel: SimVerity) -> None:
    outcomes = seal_runtime(release.runtime, release.contents)
    here = sorted(os.listdir(release.runtime))
    assert sorted(outcomes) == [f"runtime/{name}" for name in here]
    for name in here:
        descriptor = os.open(release.runtime / name, os.O_RDONLY)
        try:
            assert measure(descriptor) is not None
        finally:
            os.close(descriptor)


@pytest.mark.parametrize(("number", "is_said"), [(errno.EOPNOTSUPP, False), (errno.ETXTBSY, True), (errno.EIO, True)])
def test_warning_comes_where_this_host_seals_files_and_one_is_not(
    release: Release, kernel: SimVerity, number: int, is_said: bool
) -> None:
    kernel.refusal = number
    outcomes = seal_models(release.prefix, release.path, release.contents)
    warnings = list(seal_warnings(outcomes))
    assert bool(warnings) is is_said
    if is_said:
        assert "models/toy/toy.gguf" in warnings[0]


def test_host_without_the_feature_goes_on(release: Release, kernel: SimVerity) -> None:
    kernel.refusal = errno.ENOTTY
    [outcome] = seal_models(release.prefix, release.path, release.contents).values()
    assert outcome.outcome == NO_FEATURE


def test_incidents_of_compared_files_are_cleared_and_others_stay(
    release: Release, kernel: SimVerity, tmp_path: Path
) -> None:
    file, _ = release.model_file(release.contents.models[0])
    for digest in (file.sha256, file.chunks[0].sha256[::-1]):
        record_incident(release.prefix, make_incident("toy", digest, BYTES, "", NOW))  # type: ignore[arg-type]
    forget_stopped_models(release.prefix, release.path, release.contents)
    assert incident_file(release.prefix, file.sha256).exists(), "the bytes were not compared yet"
    seal_models(release.prefix, release.path, release.contents)
    assert not incident_file(release.prefix, file.sha256).exists()
    assert len(list(release.prefix.engine_state.iterdir())) == 1
