"""A request holds what it may hold and nothing else, and no change to its file becomes a signature."""

from __future__ import annotations

import base64
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.keys.ceremony import collect, sign, signatures_made
from appliance.keys.publication import publish
from appliance.keys.signature_requests.request import BOOT, STATEMENT, Item, Request, read_request
from appliance.keys.signature_requests.request_text import explain
from signing.errors import ApplianceError, NotTrustedError, UsageError
from signing.strictjson import load, to_file
from tests.sim.people import ROOT, TARGETS, Ceremony, finished, start
from tests.sim.tuf import key
from tests.toy import NOW

STATEMENT_PAYLOAD = to_file(
    {"_type": "https://in-toto.io/Statement/v1", "predicateType": "p", "subject": [{"name": "a", "digest": {}}]}
)


def pae(payload: bytes, kind: bytes = b"application/vnd.in-toto+json") -> bytes:
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def code(caught: pytest.ExceptionInfo[ApplianceError]) -> str:
    return caught.value.code


@pytest.mark.parametrize("targets", [5, "x", [], {}, {"signed": 5}, {"signed": {}}])
def test_request_for_a_new_root_after_some_targets_is_refused(tmp_path: Path, targets: object) -> None:
    value = load(start(tmp_path).waiting("root-1").read_bytes(), "x", 8 << 20)
    value["before"]["targets"] = targets
    with pytest.raises(NotTrustedError) as caught:
        read_request(to_file(value), "x")
    assert code(caught) == "request.refused"


@pytest.mark.parametrize("kind", [[], {}, None, 5, "root"])
def test_request_with_an_item_of_an_unknown_kind_is_refused(ceremony: Ceremony, kind: object) -> None:
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    value = load(ceremony.waiting("targets-2").read_bytes(), "x", 8 << 20)
    value["items"][0]["kind"] = kind
    with pytest.raises(NotTrustedError) as caught:
        read_request(to_file(value), "x")
    assert code(caught) == "request.refused"


def test_request_with_more_than_256_items_is_refused(ceremony: Ceremony) -> None:
    items = [Item(BOOT, f"BOOT/{number}", b"0" * 64 + b"  serial-1\n") for number in range(256)]
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW, items=items[:255])
    value = load(ceremony.waiting("targets-2").read_bytes(), "x", 8 << 20)
    assert len(read_request(to_file(value), "x").items) == 256
    value["items"].append({**value["items"][-1], "path": "BOOT/255"})
    with pytest.raises(NotTrustedError) as caught:
        read_request(to_file(value), "x")
    assert caught.value.expected == "a list of at most 256"


@pytest.mark.parametrize("label", ["root-1", "targets-2"])
def test_metadata_with_a_field_that_nobody_is_shown_is_not_signed(tmp_path: Path, label: str) -> None:
    made = start(tmp_path) if label == "root-1" else finished(tmp_path)
    if label == "targets-2":
        publish(made.workspace, "toy", "1.0.0", b"{}", NOW)
    value = load(made.waiting(label).read_bytes(), "x", 8 << 20)
    value["items"][0]["signed"]["x-appliance-override"] = {"for": "ever"}
    with pytest.raises(NotTrustedError) as caught:
        read_request(to_file(value), "x")
    assert "x-appliance-override" in caught.value.found


def test_other_messages_travel_in_the_same_request_and_their_signatures_are_found_again(ceremony: Ceremony) -> None:
    boot = Item(BOOT, "BOOT/BOOT.sha256", f"{'0' * 64}  serial-1\n".encode())
    statement = Item(STATEMENT, "attestations/a.dsse", pae(STATEMENT_PAYLOAD))
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW, items=(boot, statement))
    assert signatures_made(ceremony.workspace).get(boot.message) is None
    assert not ceremony.collect("targets-2", TARGETS[:2]).is_complete
    done = ceremony.collect("targets-2", ROOT[1:])
    assert done.is_complete
    made = signatures_made(ceremony.workspace)
    assert {message: set(keys) for message, keys in made.items()} == {
        boot.message: {one.public for one in ROOT[1:]},
        statement.message: {one.public for one in TARGETS[:2]},
    }
    told = "\n".join(explain(done))
    assert f"{'0' * 64}  serial-1" in told
    assert "statement p" in told


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (BOOT, b"not a list"),
        (BOOT, f"{'0' * 64}  a b\n".encode()),
        (BOOT, "é".encode()),
        (STATEMENT, b"anything"),
        (STATEMENT, pae(STATEMENT_PAYLOAD, b"text/plain")),
        (STATEMENT, pae(STATEMENT_PAYLOAD) + b" "),
        (STATEMENT, pae(b"{}")),
    ],
)
def test_what_does_not_parse_is_not_signed(ceremony: Ceremony, kind: str, message: bytes) -> None:
    good = publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    assert good is not None
    bad = Request((*good.items, Item(kind, "x", message)), good.before)
    with pytest.raises(NotTrustedError) as caught:
        sign(bad, TARGETS[0])
    assert code(caught) in ("request.unreadable", "request.refused")


def test_every_change_to_a_request_file_is_refused_or_changes_no_signature(ceremony: Ceremony) -> None:
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    ceremony.collect("targets-2", TARGETS[:1])
    data = ceremony.waiting("targets-2").read_bytes()
    own = read_request(data, "x")
    for at in range(0, len(data), 7):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        try:
            copy = read_request(changed, "x")
            own.merged(copy)
        except NotTrustedError:
            continue
        else:
            assert (copy.items, copy.signatures) == (own.items, own.signatures)


@pytest.mark.parametrize("field", ["format", "items", "signatures", "before", "more"])
def test_request_with_other_fields_is_refused(ceremony: Ceremony, field: str) -> None:
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    value = load(ceremony.waiting("targets-2").read_bytes(), "x")
    value[field] = 7
    with pytest.raises(NotTrustedError):
        read_request(to_file(value), "x")


def test_copy_that_was_asked_for_another_day_is_refused(ceremony: Ceremony) -> None:
    day, other = "2027-06-30T23:59:59Z", "2030-06-30T23:59:59Z"
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW, install_by=day)
    [copy] = ceremony.signed_by("targets-2", TARGETS[:1])
    good = copy.read_bytes()
    copy.write_bytes(good.replace(day.encode(), other.encode()))
    with pytest.raises(NotTrustedError) as caught:
        collect(ceremony.workspace, [copy], NOW)
    assert code(caught) == "request.differs"
    copy.write_bytes(good)
    collect(ceremony.workspace, [copy], NOW)
    assert ceremony.collect("targets-2", TARGETS[:2]).is_complete
    copy.write_bytes(good.replace(day.encode(), other.encode()))
    with pytest.raises(UsageError) as late:
        collect(ceremony.workspace, [copy], NOW)
    assert late.value.code == "request.none-waits"


@pytest.mark.parametrize("change", [str.upper, lambda text: f" {text}", lambda text: f"{text[:2]} {text[2:]}"])
def test_signature_in_another_spelling_is_refused(ceremony: Ceremony, change: Callable[[str], str]) -> None:
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    [copy] = ceremony.signed_by("targets-2", TARGETS[:1])
    value = load(copy.read_bytes(), "x")
    value["signatures"][0]["sig"] = change(value["signatures"][0]["sig"])
    with pytest.raises(NotTrustedError) as caught:
        read_request(to_file(value), "x")
    assert caught.value.expected == "a signature in lowercase hex"


@pytest.mark.parametrize("field", ["format", "signatures", "message"])
def test_same_request_in_another_form_is_refused(ceremony: Ceremony, field: str) -> None:
    boot = Item(BOOT, "BOOT/BOOT.sha256", f"{'0' * 64}  serial-10\n".encode())
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW, items=(boot,))
    ceremony.collect("targets-2", TARGETS[:1])
    value = load(ceremony.signed_by("targets-2", ROOT[:1])[0].read_bytes(), "x")
    assert len(value["signatures"]) == 2
    if field == "format":
        value["format"] = True
    elif field == "signatures":
        value["signatures"].reverse()
    else:
        message = value["items"][1]["message"]
        other = message[:-3] + chr(ord(message[-3]) + 1) + "=="
        assert base64.b64decode(other) == base64.b64decode(message)  # the same bytes: some bits count for none
        value["items"][1]["message"] = other
    with pytest.raises(NotTrustedError) as caught:
        read_request(to_file(value), "x")
    assert code(caught) == "request.refused"


@pytest.mark.parametrize("unit", ["[],", "{},", "[[[[[[[]]]]]]],", '"ab",', "300,", "\U0001f600"])
def test_request_of_many_tiny_values_is_refused_before_it_is_parsed(unit: str) -> None:
    value = unit * ((1 << 20) // len(unit))
    signed = f"[{value[:-1]}]" if unit.endswith(",") else f'"{value}"'
    start = (
        '{"before":{},"format":1,"install_by":"","items":[{"kind":"metadata","path":"metadata/1.root.json","signed":'
    )
    data = f'{start}{{"_type":"root","version":1,"x":{signed}}}}}],"signatures":[]}}'.encode()
    tracemalloc.start()
    with pytest.raises(NotTrustedError):
        read_request(data, "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_signature_by_a_stranger_is_refused(ceremony: Ceremony) -> None:
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    with pytest.raises(UsageError):
        ceremony.collect("targets-2", (key("nobody"),))
