"""The trust state of a host: floors that only rise, and a pinned root."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.host.layout.prefix import Prefix
from appliance.host.trust.metadata_store import trust_state
from appliance.host.trust.trust_store import read_floors, read_root, write_floors, write_root
from signing.errors import DamagedError
from signing.floors import Floors


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    made = Prefix.at(tmp_path / "host")
    made.create()
    return made


def test_floors_start_at_zero_and_only_rise(prefix: Prefix) -> None:
    assert read_floors(prefix) == Floors()
    assert write_floors(prefix, Floors(1, 5, 5, 5, "2026-01-01T00:00:00Z"))
    assert write_floors(prefix, Floors(1, 3, 6, 5, "2025-01-01T00:00:00Z"))
    assert read_floors(prefix) == Floors(1, 5, 6, 5, "2026-01-01T00:00:00Z")
    assert not write_floors(prefix, Floors(1, 1, 1, 1, ""))


def test_floors_that_a_newer_root_has_reset_are_stored(prefix: Prefix) -> None:
    assert write_floors(prefix, Floors(1, 5, 6, 5, "2026-01-01T00:00:00Z"))
    # As after a new root with another builder's key (TUF 5.3.11): targets and time never fall.
    assert write_floors(prefix, Floors(2, 1, 1, 4, "2025-01-01T00:00:00Z"))
    assert read_floors(prefix) == Floors(2, 1, 1, 5, "2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    "text", ["", "{}", '{"root":0}', "[]", '{"root":"1","snapshot":0,"targets":0,"time":"","timestamp":0}']
)
def test_damaged_floors_are_refused_and_never_start_at_zero(prefix: Prefix, text: str) -> None:
    (prefix.trust / "floors.json").write_text(text)
    with pytest.raises(DamagedError) as caught:
        read_floors(prefix)
    assert caught.value.code == "floors.damaged"


@pytest.mark.parametrize(("name", "code"), [("floors.json", "floors.damaged"), ("root.json", "root.unreadable")])
def test_trust_state_is_damaged_where_a_folder_has_the_name_of_its_file(prefix: Prefix, name: str, code: str) -> None:
    (prefix.trust / name).mkdir()
    with pytest.raises(DamagedError) as caught:
        trust_state(prefix)
    assert caught.value.code == code


def test_root_is_pinned_durably_and_absent_is_none(prefix: Prefix) -> None:
    assert read_root(prefix) is None
    assert write_root(prefix, b"root")
    assert not write_root(prefix, b"root")
    assert read_root(prefix) == b"root"
