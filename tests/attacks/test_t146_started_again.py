"""T146: a model with a recorded incident is started again before anybody has repaired it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.host.layout.prefix import Prefix
from appliance.host.models import incident
from appliance.host.models.incident import (
    BUS_ERROR,
    clear_incidents,
    incident_file,
    make_incident,
    record_incident,
    refuse_incident,
)
from bundles.contents.contents import File
from signing.digest import sha256
from tests.attacks.harness import guard_off, refused, row
from tests.toy import NOW

ROW = row(146)
FILE = File("models/m/model.gguf", "model", 0o644, 5, sha256(b"model"), ())


@pytest.fixture
def stopped(tmp_path: Path) -> Prefix:
    prefix = Prefix(tmp_path)
    record_incident(prefix, make_incident("toy", FILE.sha256, BUS_ERROR, "", NOW))
    return prefix


def test_unattacked_model_without_a_record_starts_and_one_that_was_repaired_does(stopped: Prefix) -> None:
    clear_incidents(stopped, [FILE.sha256])
    refuse_incident(stopped, FILE, "toy")


@pytest.mark.parametrize("name", ["toy", "the-name-in-another-release"])
def test_attacked_by_starting_it_again(stopped: Prefix, name: str) -> None:
    refused(ROW, lambda: refuse_incident(stopped, FILE, name), "model.incident", name)


def truncate(path: Path) -> None:
    os.truncate(path, 10)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def link_away(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nonexistent")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [truncate, empty, link_away, make_folder])
def test_attacked_by_damaging_the_record(stopped: Prefix, damage: Callable[[Path], None]) -> None:
    damage(incident_file(stopped, FILE.sha256))
    refused(ROW, lambda: refuse_incident(stopped, FILE, "toy"), "model.incident", "toy")


def test_attacked_by_a_second_record_the_first_stays(stopped: Prefix) -> None:
    assert not record_incident(stopped, make_incident("toy", FILE.sha256, incident.BYTES, "harmless", NOW))
    refused(ROW, lambda: refuse_incident(stopped, FILE, "toy"), "model.incident", "toy")


def test_unguarded_it_starts(stopped: Prefix) -> None:
    with guard_off(ROW.guard, lambda *_: None):
        refuse_incident(stopped, FILE, "toy")
