"""What the product writes into metadata is what the kernel reads out of it, and no signed value can be another."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.keys.signers.pem import PemKey
from appliance.keys.tuf_metadata import LIFETIMES, format_time, root_body, sign, targets_body, write_snapshot
from signing.chain import read_root
from signing.digest import sha256
from signing.errors import NotTrustedError
from signing.roles import (
    BUNDLE_TARGET,
    MAX_TARGET_BYTES,
    STATUSES,
    FileMeta,
    Pointer,
    Role,
    parse_pointer,
    parse_root,
    parse_targets,
)
from signing.strictjson import MAX_INT, load, to_file
from tests.sim.tuf import key, keys

PEOPLE = keys("property", 8)
BUILDER = key("property-builder")
VERSIONS = st.integers(1, MAX_INT)
TIMES = st.datetimes(datetime(1980, 1, 1), datetime(2400, 1, 1), timezones=st.just(timezone.utc))  # noqa: DTZ001
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PART = "[A-Za-z0-9_+][A-Za-z0-9._+@=-]{0,9}"
NAMES = st.one_of(
    st.from_regex(BUNDLE_TARGET, fullmatch=True), st.from_regex(f"(?!bundles/){PART}(?:/{PART}){{0,3}}", fullmatch=True)
)
STATEMENTS = st.lists(st.from_regex("[a-z][a-z0-9-]{0,39}", fullmatch=True), max_size=3, unique=True)
ENTRIES = st.dictionaries(
    NAMES,
    st.fixed_dictionaries(
        {
            "length": st.integers(0, MAX_TARGET_BYTES),
            "hashes": st.fixed_dictionaries({"sha256": st.binary(max_size=4).map(sha256)}),
            "custom": st.fixed_dictionaries({"status": st.sampled_from(STATUSES), "statements": STATEMENTS}),
        }
    ),
    max_size=4,
)


@st.composite
def groups(draw: st.DrawFn) -> tuple[list[PemKey], int]:
    people = draw(st.lists(st.sampled_from(PEOPLE), min_size=1, unique=True))
    return people, draw(st.integers(1, len(people)))


def role_of(people: list[PemKey], threshold: int) -> Role:
    return Role({one.public.key_id: one.public for one in people}, threshold)


def expires(kind: str, now: datetime) -> str:
    return format_time(now + timedelta(days=LIFETIMES[kind]))


@settings(max_examples=30, deadline=None)
@given(version=VERSIONS, root=groups(), targets=groups(), now=TIMES, profile=st.sampled_from(["", "development"]))
def test_any_root_is_read_as_it_was_written(
    version: int, root: tuple[list[PemKey], int], targets: tuple[list[PemKey], int], now: datetime, profile: str
) -> None:
    groups = {"root": root, "targets": targets, "snapshot": ([BUILDER], 1), "timestamp": ([BUILDER], 1)}
    publics = {name: ([one.public for one in people], many) for name, (people, many) in groups.items()}
    data = sign(root_body(version, publics, now, profile), root[0])
    found, envelope = parse_root(data, "root")
    assert found == read_root(data, "root")
    assert (found.version, found.issued, found.profile) == (version, format_time(now), profile)
    assert found.expires == expires("root", now)
    assert found.roles == {name: role_of(*group) for name, group in groups.items()}
    assert {by for by, _ in envelope.signatures} == set(found.roles["root"].keys)


@settings(max_examples=30, deadline=None)
@given(version=VERSIONS, group=groups(), entries=ENTRIES, now=TIMES)
def test_any_targets_are_read_as_they_were_written(
    version: int, group: tuple[list[PemKey], int], entries: dict[str, Any], now: datetime
) -> None:
    found, signers = parse_targets(sign(targets_body(version, entries, now), group[0]), role_of(*group), "targets")
    assert (found.version, found.issued, found.expires) == (version, format_time(now), expires("targets", now))
    assert {one.spki for one in signers} == {one.public.spki for one in group[0]}
    read = {
        name: {
            "length": one.length,
            "hashes": {"sha256": one.sha256},
            "custom": {"status": one.status, "statements": list(one.statements)},
        }
        for name, one in found.entries.items()
    }
    assert read == entries


@settings(max_examples=30, deadline=None)
@given(version=VERSIONS, targets_version=VERSIONS, targets=st.binary(max_size=64), now=TIMES)
def test_any_pointers_are_read_as_they_were_written(
    version: int, targets_version: int, targets: bytes, now: datetime
) -> None:
    files = write_snapshot(version, targets, targets_version, BUILDER, now)
    role = role_of([BUILDER], 1)
    snapshot = files[f"{version}.snapshot.json"]
    for kind, points_to, data, of, to in (
        ("timestamp", "snapshot.json", files["timestamp.json"], version, snapshot),
        ("snapshot", "targets.json", snapshot, targets_version, targets),
    ):
        meta = FileMeta(of, len(to), sha256(to))
        assert parse_pointer(data, role, kind, points_to, kind) == Pointer(version, expires(kind, now), meta)
        assert meta.covers(to)
        assert not meta.covers(to + b" ")


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value, lists and objects included, but for the whole."""
    if path:
        yield path
    if isinstance(value, (dict, list)):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, name))


def changed(signed: Any, path: tuple[Any, ...], new: Any) -> Any:
    value = copy.deepcopy(signed)
    holder = value
    for name in path[:-1]:
        holder = holder[name]
    if new is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = new
    return value


NEW = st.one_of(st.just(...), st.none(), st.booleans(), st.integers(0, MAX_INT), TEXT, st.just({}), st.just([]))


@settings(max_examples=150, deadline=None)
@given(data=st.data(), entries=ENTRIES, new=NEW)
def test_no_signed_value_can_be_another(data: st.DataObject, entries: dict[str, Any], new: Any) -> None:
    group = (list(PEOPLE[:3]), 2)
    now = datetime(2026, 1, 2, tzinfo=timezone.utc)
    publics = {name: ([one.public for one in group[0]], 2) for name in ("root", "targets")}
    builders = dict.fromkeys(("snapshot", "timestamp"), ([BUILDER.public], 1))
    pointers = write_snapshot(7, b"", 7, BUILDER, now)
    files = {
        "root": sign(root_body(7, {**publics, **builders}, now), group[0]),
        "targets": sign(targets_body(7, entries, now), group[0]),
        "snapshot": pointers["7.snapshot.json"],
        "timestamp": pointers["timestamp.json"],
    }
    kind = data.draw(st.sampled_from(sorted(files)))
    file = load(files[kind], kind)
    path = data.draw(st.sampled_from(sorted(leaves(file["signed"]), key=repr)))
    edited = {**file, "signed": changed(file["signed"], path, new)}
    if to_file(edited) == files[kind]:
        return
    with pytest.raises(NotTrustedError) as caught:
        read(kind, to_file(edited), group)
    assert caught.value.subject.startswith(kind)
    read(kind, files[kind], group)


def read(kind: str, data: bytes, group: tuple[list[PemKey], int]) -> None:
    if kind == "root":
        read_root(data, kind)
    elif kind == "targets":
        parse_targets(data, role_of(*group), kind)
    else:
        points_to = {"timestamp": "snapshot.json", "snapshot": "targets.json"}[kind]
        parse_pointer(data, role_of([BUILDER], 1), kind, points_to, kind)
