"""T18: a served file is changed on the disk after its install, while it serves or before the next start."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from appliance.host.models.incident import refuse_incident
from appliance.host.release.release import Release
from appliance.serve.supervisor import scrubbing
from appliance.serve.supervisor.engine_states import incident_errors
from appliance.serve.supervisor.scrubbing import ScrubReport, scrub_release
from tests.attacks.harness import guard_off, refused, row
from tests.sim.releases import install_toy
from tests.toy import NOW

ROW = row(18)


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    # The toy's runtime is no wheel; its check has tests of its own.
    monkeypatch.setattr(scrubbing, "check_engine_files", lambda _release: None)
    return install_toy(tmp_path)


def scrub(release: Release) -> ScrubReport:
    return scrub_release(release, ["toy"], lambda: NOW, lambda _event: None)


def start(release: Release) -> None:
    file, _ = release.model_file(release.contents.models[0])
    refuse_incident(release.prefix, file, "toy")


def change(release: Release) -> Path:
    path = release.model_file(release.contents.models[0])[1]
    data = bytearray(path.read_bytes())
    data[random.Random(18).randrange(len(data))] ^= 1
    path.write_bytes(data)
    return path


def test_unattacked_model_is_read_again_and_goes_on(release: Release) -> None:
    assert scrub(release).errors() == []
    start(release)
    assert incident_errors(release, {}) == []


def test_attacked_model_is_stopped_and_stays_so(release: Release) -> None:
    change(release)
    [error] = scrub(release).errors()
    assert error.exit_code in ROW.exit
    refused(ROW, lambda: start(release), "model.incident", "toy")
    [shown] = incident_errors(release, {})
    assert (shown.exit_code, shown.subject) == (9, "toy")


def test_attacked_model_whose_bytes_were_put_back_stays_stopped(release: Release) -> None:
    path = release.model_file(release.contents.models[0])[1]
    good = path.read_bytes()
    change(release)
    scrub(release)
    path.write_bytes(good)
    assert scrub(release).errors() == []  # the disk gives the signed bytes now
    refused(ROW, lambda: start(release), "model.incident", "toy")


def test_unguarded_scrub_passes_over_the_changed_byte(release: Release) -> None:
    change(release)
    with guard_off(ROW.guard, lambda *_: None):
        assert scrub(release).errors() == []
    start(release)
