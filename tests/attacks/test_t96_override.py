"""T96: an expiry override that is not for this bundle, this place or this time, or that too few have signed."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.builder.assembly.signature_refresh import refresh_signatures
from appliance.host.install.bundle_admission import admit, expiry_exemption
from appliance.host.install.importer import accept
from appliance.host.layout.prefix import Prefix
from appliance.host.preflight.inputs import Host
from appliance.host.trust.expiry_exemption import recorded
from appliance.host.trust.trust_store import write_floors, write_root
from appliance.keys.ceremony import request_signatures
from appliance.keys.override_request import override_of
from appliance.keys.publication import revoke
from appliance.keys.rotation import Change, rotate
from appliance.keys.signature_requests.request import OVERRIDE, Item
from appliance.keys.signature_requests.request_rules import check_rules
from appliance.keys.signature_requests.request_text import parse_asked_override
from appliance.keys.signers.host_key import make_host_key
from appliance.keys.signers.pem import PemKey
from bundles.attestation.dsse import pae
from bundles.attestation.expiry_override import ExpiryOverride, write_override
from bundles.attestation.intoto import PAYLOAD_TYPE as IN_TOTO
from signing.digest import sha256
from signing.floors import Floors
from signing.strictjson import load, to_file
from tests.appliance.sim_card import CARD
from tests.attacks.harness import guard_off, refused, row
from tests.sim.people import ROOT, TARGETS, Ceremony, copied, finished
from tests.sim.tuf import key, stated
from tests.toy import NOW, build_toy

ROW = row(96)
TODAY = NOW + timedelta(days=6 * 365)
"""The time that signed files have proved to the host: all metadata on the stick have expired by then."""
LAST_DAY = stated(TODAY)[:10]
DAY_BEFORE = stated(TODAY - timedelta(days=1))[:10]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workspace, and in it two bundles whose content two of three people have signed."""
    folder = tmp_path_factory.mktemp("override")
    ceremony = finished(folder)
    for version in ("1.0.0", "1.1.0"):
        build_toy(ceremony.workspace.path, version, note=version)
    refresh_signatures(ceremony.workspace, ceremony.collect("targets-2", TARGETS[:2]), NOW)
    return folder


@pytest.fixture
def ceremony(made: Path, tmp_path: Path) -> Ceremony:
    """A copy of that folder."""
    return copied(made, tmp_path / "copy")


@pytest.fixture
def host(ceremony: Ceremony, tmp_path: Path) -> Host:
    """A host of the site north, which has a key."""
    prefix = Prefix.at(tmp_path / "host")
    prefix.create()
    write_root(prefix, ceremony.workspace.root_file.read_bytes())
    write_floors(prefix, Floors(1, 1, 1, 1, stated(TODAY)))
    make_host_key(prefix.trust)
    prefix.site_file.write_text("site: north\n")
    return Host(prefix, CARD, lambda: NOW, "")


def fingerprint(host: Host) -> str:
    return make_host_key(host.prefix.trust).fingerprint


def bundle(ceremony: Ceremony, version: str = "1.0.0") -> Path:
    return ceremony.workspace.dist / f"toy-{version}"


def ask(ceremony: Ceremony, host: str = "", site: str = "north", day: str = LAST_DAY) -> ExpiryOverride:
    """The statement, as the workspace asks for it."""
    [item] = override_of(ceremony.workspace, "toy", "1.0.0", host, "" if host else site, day).items
    return parse_asked_override(item)


def sign(override: ExpiryOverride, *signers: PemKey) -> bytes:
    """The file, signed by two of the people, or by others."""
    people = signers or TARGETS[:2]
    return write_override(override, {one.public.key_id: one.sign(override.message) for one in people})


def install(ceremony: Ceremony, host: Host, override: bytes | None, version: str = "1.0.0") -> None:
    """The part of an install that decides about trust, and what it records."""
    asked, trust = replace(host, override=override), ceremony.workspace.root_file.read_bytes()
    found = admit(bundle(ceremony, version), trust, asked).found
    accept(host.prefix, found, trust, expiry_exemption(asked, found))


def test_unattacked_override_goes_round_as_every_request_and_lifts_the_expiry(ceremony: Ceremony, host: Host) -> None:
    refused(ROW, lambda: install(ceremony, host, None), "install.expired", str(bundle(ceremony)))
    asked = override_of(ceremony.workspace, "toy", "1.0.0", fingerprint(host), "", LAST_DAY)
    request = request_signatures(ceremony.workspace, asked, NOW)
    assert not ceremony.collect(request.label, TARGETS[:1]).is_complete
    assert ceremony.collect(request.label, TARGETS[1:2]).is_complete
    file = ceremony.workspace.path / "overrides" / f"{request.label}.json"
    install(ceremony, host, file.read_bytes())
    assert not ceremony.waiting(request.label).exists()


def test_unattacked_override_for_the_site_is_recorded(ceremony: Ceremony, host: Host) -> None:
    override = sign(ask(ceremony))
    install(ceremony, host, override)
    found = admit(bundle(ceremony), ceremony.workspace.root_file.read_bytes(), replace(host, override=override)).found
    kept = recorded(host.prefix, found)
    assert kept is not None
    assert (kept.override.site, kept.override.last_day) == ("north", LAST_DAY)
    assert set(kept.signers) == {one.public.fingerprint for one in TARGETS[:2]}


def test_unattacked_bundle_that_has_not_expired_needs_none_and_records_none(ceremony: Ceremony, host: Host) -> None:
    (host.prefix.trust / "floors.json").unlink()
    install(ceremony, host, sign(ask(ceremony)))
    assert not (host.prefix.trust / "overrides").exists()


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("override.other-host", {"site": "", "host": "0" * 64}),
        ("override.other-site", {"site": "south"}),
        ("override.over", {"last_day": DAY_BEFORE}),
        ("override.other-bundle", {"manifest": "0" * 64}),
        ("override.other-bundle", {"version": "1.1.0"}),
        ("override.other-bundle", {"name": "toys"}),
    ],
)
def test_attacked_with_an_override_for_something_else(
    ceremony: Ceremony, host: Host, code: str, change: dict[str, str]
) -> None:
    override = sign(replace(ask(ceremony), **change))  # type: ignore[arg-type]
    refused(ROW, lambda: install(ceremony, host, override), code, "--override")
    assert not (host.prefix.trust / "overrides").exists()


def test_attacked_by_handing_it_in_for_another_bundle(ceremony: Ceremony, host: Host) -> None:
    override = sign(ask(ceremony))
    install(ceremony, host, override)
    refused(ROW, lambda: install(ceremony, host, override, "1.1.0"), "override.other-bundle", "--override")


def test_attacked_on_a_host_without_a_name_or_a_key(ceremony: Ceremony, host: Host) -> None:
    host.prefix.site_file.unlink()
    refused(ROW, lambda: install(ceremony, host, sign(ask(ceremony))), "override.other-site", "--override")
    for name in ("host.pem", "host.pub"):
        (host.prefix.trust / name).unlink()
    override = sign(ask(ceremony, host="0" * 64))
    refused(ROW, lambda: install(ceremony, host, override), "override.other-host", "--override")


@pytest.mark.parametrize(
    ("signers", "code"),
    [
        (TARGETS[:1], "signature.threshold"),
        (ROOT[:2], "signature.stranger"),
        ((TARGETS[0], key("t96-thief")), "signature.stranger"),
    ],
)
def test_attacked_with_too_few_signatures(
    ceremony: Ceremony, host: Host, signers: tuple[PemKey, ...], code: str
) -> None:
    override = sign(ask(ceremony), *signers)
    refused(ROW, lambda: install(ceremony, host, override), code, "--override")


def test_attacked_with_one_signature_twice(ceremony: Ceremony, host: Host) -> None:
    value = load(sign(ask(ceremony), TARGETS[0]), "x")
    value["signatures"] *= 2
    refused(ROW, lambda: install(ceremony, host, to_file(value)), "envelope.refused", "--override")


def test_attacked_with_a_statement_of_another_payload_type(ceremony: Ceremony, host: Host) -> None:
    """The same people sign other statements in the same format, with the same keys."""
    payload = ask(ceremony).to_payload()
    value = load(sign(ask(ceremony)), "x")
    message = pae(IN_TOTO, payload)
    signatures = [
        {"keyid": one.public.key_id, "sig": base64.b64encode(one.sign(message)).decode()} for one in TARGETS[:2]
    ]
    other = {**value, "signatures": signatures}
    refused(ROW, lambda: install(ceremony, host, to_file(other)), "signature.invalid", "--override")
    other["payloadType"] = IN_TOTO
    refused(ROW, lambda: install(ceremony, host, to_file(other)), "envelope.payload-type", "--override")


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"format": True},
        {"last_day": "2032-02-30"},
        {"last_day": "9999"},
        {"site": "North"},
        {"site": ["north"]},
        {"host": "0" * 64},
        {"target": "toy"},
        {"lifts": "everything"},
    ],
)
def test_attacked_with_another_form_of_the_statement(ceremony: Ceremony, host: Host, change: dict[str, object]) -> None:
    value = {**load(ask(ceremony).to_payload(), "x"), **change}
    payload = to_file(value)
    envelope = load(sign(ask(ceremony)), "x")
    message = pae(envelope["payloadType"], payload)
    envelope["payload"] = base64.b64encode(payload).decode()
    envelope["signatures"] = [
        {"keyid": one.public.key_id, "sig": base64.b64encode(one.sign(message)).decode()} for one in TARGETS[:2]
    ]
    refused(ROW, lambda: install(ceremony, host, to_file(envelope)), "override.refused", "--override")


def test_attacked_with_a_revoked_bundle(ceremony: Ceremony, host: Host) -> None:
    """An expiry is lifted, and nothing else."""
    override = sign(ask(ceremony))
    revoke(ceremony.workspace, "toy", "1.0.0", NOW)
    request = ceremony.collect("targets-3", TARGETS[:2])
    assert request.is_complete
    refresh_signatures(ceremony.workspace, request, NOW)
    refused(ROW, lambda: install(ceremony, host, override), "target.revoked", "bundles/toy/1.0.0/manifest.json")


def test_attacked_with_signatures_of_people_who_were_rotated_out(ceremony: Ceremony, host: Host) -> None:
    override, new = sign(ask(ceremony)), key("t96-newcomer")
    rotate(ceremony.workspace, Change(remove=(TARGETS[0].public.fingerprint,), add_targets=(new.public,)), NOW)
    request = ceremony.collect("root-2", (*ROOT[:2], TARGETS[1], new))
    assert request.is_complete
    refresh_signatures(ceremony.workspace, request, NOW)
    refused(ROW, lambda: install(ceremony, host, override), "signature.stranger", "--override")


def test_attacked_by_a_request_for_a_revoked_or_unknown_bundle(ceremony: Ceremony) -> None:
    """A signer's machine refuses to sign what the published targets do not allow."""
    asked = override_of(ceremony.workspace, "toy", "1.0.0", "", "north", LAST_DAY)
    for change in ({"version": "9.9.9"}, {"manifest": "0" * 64}):
        override = replace(ask(ceremony), **change)  # type: ignore[arg-type]
        path = f"overrides/{sha256(override.message)[:16]}.json"
        request = replace(asked, items=(Item(OVERRIDE, path, override.message),))
        subject = f"toy {override.version}"
        refused(ROW, lambda request=request: check_rules(request), "request.override", subject)  # type: ignore[misc]


def test_unguarded_any_override_lifts_the_expiry(ceremony: Ceremony, host: Host) -> None:
    with guard_off(ROW.guard, lambda *_: True):
        admit(bundle(ceremony), ceremony.workspace.root_file.read_bytes(), replace(host, override=b"{}"))
