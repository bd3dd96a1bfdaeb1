"""T85: a request whose names, dates or fields forge what its signer is shown, or are not shown."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from appliance.keys.signature_requests.request import read_request
from appliance.keys.signature_requests.request_text import explain
from signing.errors import NotTrustedError
from tests.appliance.keys.signature_requests.test_shown import NEXT, NEXT_ROOT, changed, request_file, target
from tests.attacks.harness import guard_off, refused, row
from tests.sim.tuf import Signed

ROW = row(85)
FORGED = "bundles/zz/\n\n\ntargets version 3, and nothing more/manifest.json"


def shown(signed: Signed) -> tuple[str, ...]:
    return explain(read_request(request_file(signed), "request"))


def test_unattacked_bundle_is_shown_with_every_field() -> None:
    lines = shown(changed(NEXT, target("bundles/toy/1.0.0/manifest.json")))
    at = lines.index("    toy 1.0.0 becomes current, manifest")
    assert lines[at + 1].startswith("      sha256:")
    assert lines[at + 2] == "      1 bytes, must state ml-bom, provenance, sbom"


@pytest.mark.parametrize("name", [FORGED, "smollm2 1.0.0", "bundles/toy/1.0.0\x1b[8m/manifest.json"])
def test_attacked_by_a_name_that_forges_a_line(name: str) -> None:
    refused(ROW, lambda: shown(changed(NEXT, target(name))), "metadata.refused", "metadata/3.targets.json")


def test_attacked_by_a_character_that_nobody_sees() -> None:
    name = "bundles/smollm2/1.0.0\u200b/manifest.json"
    refused(ROW, lambda: shown(changed(NEXT, target(name, length=1))), "request.refused", "request")


@pytest.mark.parametrize(
    "change",
    [
        lambda signed: signed.update({"x-appliance-more": {}}),
        lambda signed: signed["roles"]["root"]["keyids"].reverse(),
        lambda signed: signed.update(spec_version="1.0.35"),
    ],
)
def test_attacked_by_a_field_or_an_order_that_nobody_is_shown(change: Callable[[Signed], object]) -> None:
    refused(ROW, lambda: shown(changed(NEXT_ROOT, change)), "request.refused", "metadata/2.root.json")


def test_attacked_by_a_day_with_more_text() -> None:
    data = request_file(NEXT, "2027-06-30T23:59:59Z\nnothing else is asked")
    refused(ROW, lambda: read_request(data, "request"), "metadata.refused", "request")


def test_unguarded_the_name_writes_lines_of_its_own() -> None:
    with pytest.raises(NotTrustedError):
        shown(changed(NEXT, target(FORGED)))
    with guard_off(ROW.guard, lambda name, _subject: name):
        lines = "\n".join(shown(changed(NEXT, target(FORGED))))
    assert "\ntargets version 3, and nothing more" in lines
