"""A recorded incident stops a model until an install has repaired it."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from appliance.host.layout.prefix import Prefix
from appliance.host.models.incident import (
    BUS_ERROR,
    BYTES,
    INCIDENT_CODE,
    MAX_DETAIL,
    UNKNOWN,
    Incident,
    clear_incidents,
    incident_file,
    make_incident,
    read_incident,
    record_incident,
    refuse_incident,
)
from bundles.contents.contents import File
from signing.digest import sha256
from signing.errors import DriftError

FILE = sha256(b"model")
NOW = datetime(2026, 1, 31, 12, 0, 0, 5, timezone.utc)
SIGNED = File("models/m/model.gguf", "model", 0o644, 5, FILE, ())


def incident(cause: str = BYTES, detail: str = "bytes 0 to 9") -> Incident:
    return make_incident("toy", FILE, cause, detail, NOW)


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    return Prefix(tmp_path)


def test_record_is_read_back_and_the_first_one_stays(prefix: Prefix) -> None:
    assert read_incident(prefix, FILE, "toy") is None
    assert record_incident(prefix, incident())
    assert not record_incident(prefix, incident(BUS_ERROR))
    assert read_incident(prefix, FILE, "toy") == incident()
    assert incident().time == "2026-01-31T12:00:00Z"


def test_another_release_that_names_the_file_otherwise_is_stopped_too(prefix: Prefix) -> None:
    record_incident(prefix, incident())
    found = read_incident(prefix, FILE, "other")
    assert found is not None
    assert found.model == "other"


def test_start_is_refused_with_what_was_found_and_the_way_back(prefix: Prefix) -> None:
    refuse_incident(prefix, SIGNED, "toy")
    record_incident(prefix, incident())
    with pytest.raises(DriftError) as caught:
        refuse_incident(prefix, SIGNED, "toy")
    error = caught.value
    assert (error.code, error.subject, error.exit_code) == (INCIDENT_CODE, "toy", 9)
    assert "bytes 0 to 9" in error.found
    assert "2026-01-31T12:00:00Z" in error.found
    assert "appliance install" in error.hint


def test_detail_is_one_line_and_not_long(prefix: Prefix) -> None:
    record_incident(prefix, incident(detail="a\nb\x1b[2J" + "x" * 1000))
    found = read_incident(prefix, FILE, "toy")
    assert found is not None
    assert found.detail.startswith("a b [2Jxxx")
    assert len(found.detail) == MAX_DETAIL


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"model": 1}',
        b"[" * 5000,
        b'{"model":"toy","file":"%s","cause":"none","detail":"","time":"2026-01-31T12:00:00Z"}' % FILE.encode(),
        b'{"model":"toy","file":"%s","cause":"bytes","detail":"\\n","time":"2026-01-31T12:00:00Z"}' % FILE.encode(),
        b'{"model":"toy","file":"%s","cause":"bytes","detail":"","time":"today"}' % FILE.encode(),
    ],
)
def test_what_is_no_record_counts_as_an_incident(prefix: Prefix, data: bytes) -> None:
    path = incident_file(prefix, FILE)
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    found = read_incident(prefix, FILE, "toy")
    assert found is not None
    assert found.cause == UNKNOWN
    with pytest.raises(DriftError):
        refuse_incident(prefix, SIGNED, "toy")


def test_link_in_the_place_of_a_record_is_not_followed(prefix: Prefix, tmp_path: Path) -> None:
    path = incident_file(prefix, FILE)
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "none")
    found = read_incident(prefix, FILE, "toy")
    assert found is not None
    assert found.cause == UNKNOWN
    assert not record_incident(prefix, incident())


def test_cleared_record_is_gone_and_others_stay(prefix: Prefix) -> None:
    other = sha256(b"other")
    record_incident(prefix, incident())
    record_incident(prefix, make_incident("two", other, BYTES, "", NOW))
    assert clear_incidents(prefix, [FILE, sha256(b"none")]) == (FILE,)
    assert read_incident(prefix, FILE, "toy") is None
    assert read_incident(prefix, other, "two") is not None
