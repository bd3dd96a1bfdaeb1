"""A receipt is read as it was written, is short, and holds nothing but words of its grammar."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.keys.signers.pem import PemKey
from bundles.attestation.dsse import pae
from bundles.receipt import (
    LEVELS,
    MAX_HELD,
    MAX_RECEIPT_BYTES,
    PAYLOAD_TYPE,
    HeldBundle,
    Receipt,
    read_receipt,
    shorten,
    write_receipt,
)
from signing.digest import Digest, sha256
from signing.errors import NotTrustedError
from signing.floors import Floors
from signing.strictjson import MAX_INT, Json, load, to_file
from tests.receipts import FLOORS, make_key, receipt_of

NAMES = st.from_regex(r"[A-Za-z0-9_+][A-Za-z0-9_+@=-]{0,80}", fullmatch=True).filter(
    lambda name: name.lower() not in {"con", "prn", "aux", "nul"} and name.lower()[:3] not in {"com", "lpt"}
)
VERSIONS = st.integers(1, MAX_INT)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> PemKey:
    return make_key(tmp_path_factory.mktemp("receipt"))


def held(count: int, name: str = "toy", version: str = "1.0") -> tuple[HeldBundle, ...]:
    return tuple(HeldBundle(sha256(b"%d" % number), name, version) for number in range(count))


def changed(data: bytes, key: PemKey, **members: Json) -> bytes:
    """The same receipt with other members, signed again; a value of `...` removes one."""
    payload = {**json.loads(receipt_payload(data)), **members}
    text = to_file({name: value for name, value in payload.items() if value is not ...})
    value = load(data, "receipt")
    value["payload"] = base64.b64encode(text).decode()
    value["signatures"][0]["sig"] = base64.b64encode(key.sign(pae(PAYLOAD_TYPE, text))).decode()
    return to_file(value)


def receipt_payload(data: bytes) -> bytes:
    return base64.b64decode(load(data, "receipt")["payload"])


@settings(max_examples=25)
@given(
    counter=VERSIONS,
    floors=st.builds(Floors, VERSIONS, VERSIONS, VERSIONS, VERSIONS, st.just(FLOORS.time)),
    level=st.sampled_from([None, *LEVELS]),
    names=st.lists(st.tuples(NAMES, NAMES), max_size=MAX_HELD + 10),
)
def test_receipt_is_read_as_it_was_written_and_is_short(
    key: PemKey, counter: int, floors: Floors, level: str | None, names: list[tuple[str, str]]
) -> None:
    bundles = tuple(HeldBundle(sha256(b"%d" % at), *pair) for at, pair in enumerate(names))
    release = bundles[0].manifest if bundles else None
    receipt = shorten(receipt_of(key, counter=counter, floors=floors, level=level, release=release, bundles=bundles))
    assert bundles[: len(receipt.bundles)] == receipt.bundles
    data = write_receipt(receipt, key.sign)
    assert len(data) <= MAX_RECEIPT_BYTES
    assert read_receipt(data, {key.public.fingerprint}, "receipt") == receipt


def test_receipt_of_sixty_bundles_with_usual_names_names_them_all(key: PemKey) -> None:
    bundles = held(60, "qwen2.5-0.5b-instruct", "1.12.3")
    receipt = receipt_of(key, bundles=bundles, release=bundles[0].manifest)
    assert shorten(receipt) == receipt


def test_bundle_with_the_longest_name_still_fits(key: PemKey) -> None:
    bundles = held(MAX_HELD, "n" * 200, "v" * 200)
    receipt = shorten(receipt_of(key, bundles=bundles, release=bundles[0].manifest))
    assert 20 < len(receipt.bundles) < MAX_HELD


@pytest.mark.parametrize(
    "members",
    [
        {"format": True},
        {"format": 2},
        {"head": "0" * 64},
        {"counter": 0},
        {"counter": True},
        {"counter": -1},
        {"time": "today"},
        {"reads": None},
        {"level": "E9"},
        {"level": ""},
        {"release": "0" * 64},
        {"release": "toy"},
        {"floors": {}},
        {"floors": {"root": 0, "timestamp": 1, "snapshot": 1, "targets": 1, "time": "2026-01-02T03:04:05Z"}},
        {"bundles": None},
        {"bundles": [{"manifest": "0" * 64, "name": "toy"}]},
        {"bundles": [{"manifest": "0" * 64, "name": "a/b", "version": "1"}]},
        {"bundles": [{"manifest": "0" * 64, "name": "two words", "version": "1"}]},
        {"bundles": [{"manifest": "0" * 64, "name": "toy", "version": "1", "note": "x"}]},
        {"bundles": [{"manifest": "0" * 64, "name": "toy", "version": "1"}] * 2},
        {"bundles": [{"manifest": f"{at:064}", "name": "a", "version": "1"} for at in range(MAX_HELD + 1)]},
        {"level": ...},
        {"hostname": "db-7"},
    ],
    ids=str,
)
def test_receipt_with_another_word_is_refused(key: PemKey, members: dict[str, Json]) -> None:
    data = changed(write_receipt(receipt_of(key, release=None), key.sign), key, **members)
    with pytest.raises(NotTrustedError):
        read_receipt(data, {key.public.fingerprint}, "receipt")


@given(data=st.data())
def test_receipt_with_one_other_byte_is_refused(key: PemKey, data: st.DataObject) -> None:
    written = write_receipt(receipt_of(key), key.sign)
    at = data.draw(st.integers(0, len(written) - 1))
    other = written[:at] + bytes([written[at] ^ data.draw(st.integers(1, 255))]) + written[at + 1 :]
    known: set[Digest] = {key.public.fingerprint}
    try:
        found = read_receipt(other, known, "receipt")
    except NotTrustedError:
        return
    assert found == receipt_of(key)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\x00" * 100, b"x" * (MAX_RECEIPT_BYTES + 1)])
def test_what_is_no_receipt_is_refused(data: bytes) -> None:
    with pytest.raises(NotTrustedError):
        read_receipt(data, set(), "receipt")


def test_receipt_states_no_head_until_there_is_one(key: PemKey, tmp_path: Path) -> None:
    receipt: Receipt = replace(receipt_of(key), level="E2")
    assert json.loads(receipt.payload)["head"] is None
