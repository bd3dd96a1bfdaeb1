"""T86: a copy of a signing request that differs from what was asked, around the same message."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.keys.ceremony import collect
from appliance.keys.publication import publish
from appliance.keys.signature_requests.request import read_request
from signing.strictjson import load, to_file
from tests.attacks.harness import guard_off, refused, row
from tests.sim.people import TARGETS, Ceremony, finished
from tests.toy import NOW

ROW = row(86)
DAY, OTHER = "2027-06-30T23:59:59Z", "2030-06-30T23:59:59Z"


@pytest.fixture
def asked(tmp_path: Path) -> Ceremony:
    """A bundle waits for its signatures, and is meant to be installed until a day."""
    made = finished(tmp_path)
    publish(made.workspace, "toy", "1.0.0", b"{}", NOW, install_by=DAY)
    return made


def copy_for(made: Ceremony, day: str) -> Path:
    [copy] = made.signed_by("targets-2", TARGETS[:1])
    copy.write_bytes(copy.read_bytes().replace(DAY.encode(), day.encode()))
    return copy


def test_unattacked_copy_brings_its_signature(asked: Ceremony) -> None:
    assert len(collect(asked.workspace, [copy_for(asked, DAY)], NOW).signatures) == 1


def test_attacked_by_a_copy_for_another_day(asked: Ceremony) -> None:
    copy = copy_for(asked, OTHER)
    refused(ROW, lambda: collect(asked.workspace, [copy], NOW), "request.differs", "targets-2")


@pytest.mark.parametrize("form", ["format", "signature"])
def test_attacked_by_the_same_request_in_another_form(asked: Ceremony, form: str) -> None:
    value = load(copy_for(asked, DAY).read_bytes(), "copy")
    if form == "format":
        value["format"] = True
    else:
        value["signatures"][0]["sig"] = value["signatures"][0]["sig"].upper()
    code = {"format": "request.refused", "signature": "metadata.refused"}[form]
    refused(ROW, lambda: read_request(to_file(value), "copy"), code, "copy")


def test_unguarded_the_signature_for_another_day_counts(asked: Ceremony) -> None:
    copy = copy_for(asked, OTHER)
    with guard_off(ROW.guard, lambda *_: True):
        assert len(collect(asked.workspace, [copy], NOW).signatures) == 1
