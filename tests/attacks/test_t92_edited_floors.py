"""T92: a file of floors that somebody has edited, so that what is older counts as new."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from appliance.host.install.bundle_admission import admit
from appliance.host.layout.prefix import Prefix
from appliance.host.preflight.inputs import Host
from appliance.host.trust.trust_store import read_floors, write_floors, write_root
from appliance.keys.tuf_repository import FLOORS, published
from signing.errors import DamagedError
from signing.floors import Floors
from signing.strictjson import load, to_file
from tests.appliance.sim_card import CARD
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.toy import NOW, build_toy

ROW = row(92)
VERSIONS: list[Any] = [0, -1, True, None, "1", 1.5, [1], 1 << 63]
TIMES: list[Any] = [
    "",
    None,
    1,
    "zzzz",
    "0",
    "2026-01-01",
    "2026-02-31T00:00:00Z",
    "2026-01-01T00:00:00Z\n",
    "\u0662026",
]
FIELDS = ("root", "timestamp", "snapshot", "targets")


@pytest.fixture
def host(stick: Stick, tmp_path: Path) -> Host:
    """A host that has accepted a newer publication than the stick's."""
    prefix = Prefix.at(tmp_path / "host")
    prefix.create()
    write_root(prefix, stick.root)
    floors = stick.open().evidence.floors
    write_floors(
        prefix, Floors(floors.root, floors.timestamp + 1, floors.snapshot + 1, floors.targets + 1, floors.time)
    )
    return Host(prefix, CARD, lambda: NOW, "")


def edit(host: Host, **values: object) -> None:
    path = host.prefix.trust / "floors.json"
    value = {**asdict(read_floors(host.prefix)), **values}
    path.write_text(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def test_unattacked_floors_that_were_written_are_read(host: Host) -> None:
    floors = read_floors(host.prefix)
    assert not write_floors(host.prefix, floors)
    assert read_floors(host.prefix) == floors


@pytest.mark.parametrize("value", VERSIONS, ids=repr)
@pytest.mark.parametrize("name", FIELDS)
def test_attacked_by_a_version_that_no_walk_proves(stick: Stick, host: Host, name: str, value: object) -> None:
    edit(host, **{name: value})
    before = (host.prefix.trust / "floors.json").read_bytes()
    refused(ROW, lambda: admit(stick.path, stick.root, host), "floors.damaged", str(host.prefix.trust / "floors.json"))
    assert (host.prefix.trust / "floors.json").read_bytes() == before


@pytest.mark.parametrize("value", TIMES, ids=repr)
def test_attacked_by_a_time_that_nobody_stated(stick: Stick, host: Host, value: object) -> None:
    edit(host, time=value)
    refused(ROW, lambda: admit(stick.path, stick.root, host), "floors.damaged", str(host.prefix.trust / "floors.json"))


@pytest.mark.parametrize("value", [{}, [], None, {"root": 1}, {**asdict(Floors(1, 1, 1, 1, "")), "more": 1}])
def test_attacked_by_other_fields(stick: Stick, host: Host, value: object) -> None:
    (host.prefix.trust / "floors.json").write_bytes(to_file(value))
    refused(ROW, lambda: admit(stick.path, stick.root, host), "floors.damaged", str(host.prefix.trust / "floors.json"))


@pytest.mark.parametrize("change", [{"targets": "9"}, {"root": 0}, {"time": "soon"}, {"snapshot": None}])
def test_attacked_by_an_edited_record_of_what_a_publisher_published(tmp_path: Path, change: dict[str, object]) -> None:
    workspace, _ = build_toy(tmp_path / "workspace")
    path = workspace.path / FLOORS
    path.write_bytes(to_file({**load(path.read_bytes(), FLOORS), **change}))
    with pytest.raises(DamagedError) as caught:
        published(workspace)
    assert caught.value.code == "repository.floors"


def test_unguarded_the_edited_floors_let_an_old_stick_pass(stick: Stick, host: Host) -> None:
    edit(host, **dict.fromkeys(FIELDS, 0))
    with guard_off(ROW.guard, lambda data, subject: Floors(**load(data, subject))):
        assert admit(stick.path, stick.root, host).found.value.manifest == stick.manifest
