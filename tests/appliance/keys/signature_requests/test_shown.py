"""What is signed is what is shown: metadata that differ never give the same text, and no field forges a line."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.keys.signature_requests.request import STATEMENT, Item, Request, read_request, write_request
from appliance.keys.signature_requests.request_text import explain
from signing.errors import NotTrustedError
from signing.keys import key_to_json
from signing.roles import REVOKED_KEYS
from signing.strictjson import load, to_file
from tests.sim.people import ROOT, TARGETS
from tests.sim.tuf import USUAL, Keys, Signed, TufRepository, entry, key

STATEMENTS = ["ml-bom", "provenance", "sbom"]
SMOLLM2, OTHER = "bundles/smollm2/1.0.0/manifest.json", "bundles/base/1.0.0/manifest.json"
Change = Callable[[Signed], object]


def made() -> TufRepository:
    repository = TufRepository()
    repository.publish({SMOLLM2: required(b"1"), OTHER: required(b"2")})
    return repository


def required(data: bytes) -> Signed:
    value = entry(data)
    value["custom"]["statements"] = list(STATEMENTS)
    return value


REPOSITORY = made()
BEFORE = {
    "root": load(REPOSITORY.pinned, "root", 1 << 20),
    "targets": load(REPOSITORY.files[REPOSITORY.targets_name], "targets", 1 << 20),
}
NEXT = {**BEFORE["targets"]["signed"], "version": REPOSITORY.targets_version + 1}
NEXT_ROOT = {
    name: value
    for name, value in {**BEFORE["root"]["signed"], "version": 2}.items()
    if name != "x-appliance-profile"  # empty there, as only this repository of the tests writes it
}


def request_file(signed: Signed, install_by: str = "") -> bytes:
    """The request that proposes metadata after what `BEFORE` holds."""
    path = f"metadata/{signed.get('version')}.{signed.get('_type')}.json"
    return to_file(
        {
            "before": BEFORE,
            "format": 1,
            "install_by": install_by,
            "items": [{"kind": "metadata", "path": path, "signed": signed}],
            "signatures": [],
        }
    )


def shown(signed: Signed) -> tuple[str, ...]:
    return explain(read_request(request_file(signed), "x"))


def changed(signed: Signed, change: Change) -> Signed:
    value = copy.deepcopy(signed)
    change(value)
    return value


def refused(signed: Signed) -> str:
    with pytest.raises(NotTrustedError) as caught:
        read_request(request_file(signed), "x")
    assert caught.value.exit_code == 4
    return caught.value.code


def target(name: str, **fields: Any) -> Change:
    """A further target."""
    return lambda signed: signed["targets"].update({name: {**required(b"1"), **fields}})


def test_what_is_refused_below_is_shown_without_the_attack() -> None:
    assert shown(NEXT)[0].startswith("targets version 3, ")
    assert shown(NEXT_ROOT)[0].startswith("trust root version 2, ")


@pytest.mark.parametrize(
    "name",
    [
        "bundles/zz/" + "\n" * 60 + "targets version 2, issued 2026-11-29T20:28:52Z/manifest.json",
        "bundles/smollm2/1.0.0\u200b/manifest.json",
        "bundles/smollm2/\u202e1.0.0/manifest.json",
        "bundles/smollm2/1.0.0\x1b[2J/manifest.json",
        "bundles/smollm2 1.0.0 is REMOVED,/1/manifest.json",
        "smollm2 1.0.0",
        "bundles/sm\u043ellm2/1.0.0/manifest.json",
    ],
)
def test_name_that_forges_what_is_shown_is_refused_at_reading(name: str) -> None:
    assert refused(changed(NEXT, target(name))) in ("metadata.refused", "request.refused")


def test_plain_target_is_shown_as_what_it_is() -> None:
    lines = shown(changed(NEXT, target("smollm2/1.0.0")))
    assert "    smollm2/1.0.0, which is NO BUNDLE, becomes current, file" in lines


def test_changed_length_is_shown() -> None:
    lines = shown(changed(NEXT, lambda signed: signed["targets"][SMOLLM2].update(length=1000)))
    assert "      1000 bytes, was 1 bytes, must state ml-bom, provenance, sbom" in lines
    assert "  as before: 1" in lines


@pytest.mark.parametrize("statements", [["ml-bom, provenance, sbom"], ["ml-bom", "provenance, sbom"], ["sbom\n"]])
def test_one_statement_that_reads_like_several_is_refused(statements: list[str]) -> None:
    def change(signed: Signed) -> None:
        signed["targets"][SMOLLM2]["custom"]["statements"] = statements

    assert refused(changed(NEXT, change)) == "metadata.refused"


def test_statements_in_another_order_are_another_text() -> None:
    def change(signed: Signed) -> None:
        signed["targets"][SMOLLM2]["custom"]["statements"].reverse()

    assert "      1 bytes, must state sbom, provenance, ml-bom, was ml-bom, provenance, sbom" in shown(
        changed(NEXT, change)
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda signed: signed.update(spec_version="1.0.33"),
        lambda signed: signed.update({"x-appliance-more": 1}),
        lambda signed: signed.update({"x-appliance-profile": ""}),
        lambda signed: signed.update({REVOKED_KEYS: []}),
        lambda signed: signed["keys"].update({key("hidden").public.key_id: key_to_json(key("hidden").public)}),
        lambda signed: signed["roles"]["targets"]["keyids"].reverse(),
        lambda signed: signed.update(consistent_snapshot=1),
    ],
)
def test_root_with_more_than_is_shown_is_refused(change: Change) -> None:
    assert refused(changed(NEXT_ROOT, change)) in ("request.refused", "metadata.refused")


@pytest.mark.parametrize(
    "text",
    ["2027-06-30T23:59:59Z\nall good", "2027-06-30", "tomorrow", "2027-02-30T00:00:00Z", "2027-06-30T23:59:59Z "],
)
def test_day_of_installation_has_the_form_of_the_other_times(text: str) -> None:
    assert read_request(request_file(NEXT, "2027-06-30T23:59:59Z"), "x").install_by == "2027-06-30T23:59:59Z"
    with pytest.raises(NotTrustedError) as caught:
        read_request(request_file(NEXT, text), "x")
    assert (caught.value.code, caught.value.expected) == ("metadata.refused", "install_by as YYYY-MM-DDThh:mm:ssZ")


def test_two_files_of_one_role_are_refused() -> None:
    value = load(request_file(NEXT), "x")
    later = {**NEXT, "version": 4}
    value["items"].append({"kind": "metadata", "path": "metadata/4.targets.json", "signed": later})
    with pytest.raises(NotTrustedError) as caught:
        read_request(to_file(value), "x")
    assert (caught.value.expected, caught.value.found) == ("one targets file", "two")


@pytest.mark.parametrize("path", ["a\nb", "BOOT/\u200b", "/etc/passwd", "../a", "a b", ""])
def test_path_of_an_item_has_the_grammar_of_paths(path: str) -> None:
    value = load(request_file(NEXT), "x")
    value["items"].append({"kind": "boot", "path": path, "message": ""})
    with pytest.raises(NotTrustedError):
        read_request(to_file(value), "x")


def statement(name: str, predicate: str = "p", **digest: Any) -> tuple[str, ...]:
    payload = to_file({"predicateType": predicate, "subject": [{"name": name, "digest": digest}]})
    message = b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload)
    return explain(Request((Item(STATEMENT, "attestations/a.dsse", message),)))


def test_free_text_of_a_statement_stays_on_its_line_and_is_visible() -> None:
    plain = statement("toy-1.0.0", sha256="a" * 64)
    assert plain[2:] == ("  about toy-1.0.0", f"    sha256:{'a' * 64}")
    for name in ("a\nb", "a\u200bb", "a\x7fb", "a\x1b[2J", 'a" b', "toy-1.0.0 sha256:" + "b" * 64, "\u202e"):
        lines = statement(name, name, sha256=name)
        assert len(lines) == 4
        assert all(line.isascii() and line.isprintable() for line in lines)
        assert lines[2].startswith('  about "')
        assert lines != statement(name + " ", name, sha256=name)


NAMES = st.sampled_from([SMOLLM2, OTHER, "bundles/a/1/manifest.json", "bundles/a/2/manifest.json", "a/1", "a", "a-1"])
ENTRY = st.builds(
    lambda length, digest, status, statements: {
        "length": length,
        "hashes": {"sha256": digest * 64},
        "custom": {"status": status, "statements": statements},
    },
    st.integers(0, 3) | st.integers(0, 4 << 20),
    st.sampled_from("0123456789abcdef"),
    st.sampled_from(["current", "allowed", "revoked"]),
    st.lists(st.sampled_from(["a", "b", "ml-bom", "was", "nothing"]), max_size=3, unique=True)
    | st.sampled_from([["a, b"], ["NOTHING"], ["a", "a"]]),
)
TIMES = st.sampled_from(["2026-01-02T03:04:05Z", "2031-01-02T03:04:05Z", "2031-01-02T03:04:06Z"])
PUBLISHED = BEFORE["targets"]["signed"]["targets"]
TARGETS_FILES = st.builds(
    lambda published, entries, **more: {**NEXT, **more, "targets": {**(PUBLISHED if published else {}), **entries}},
    st.booleans(),
    st.dictionaries(NAMES, ENTRY, max_size=3),
    expires=TIMES,
    **{"x-appliance-issued": TIMES, "version": st.integers(3, 4)},
)


def groups(people: Keys) -> st.SearchStrategy[tuple[list[str], int]]:
    ids = [one.public.key_id for one in people]
    return st.lists(st.sampled_from(ids), min_size=2, unique=True).flatmap(
        lambda some: st.tuples(st.just(some), st.integers(1, len(some)))
    )


def root_file(
    people: dict[str, tuple[list[str], int]], expires: str, is_sorted: bool, profile: str | None, revoked: list[str]
) -> Signed:
    every = {one.public.key_id: one.public for one in (*USUAL.root, *USUAL.targets, *ROOT, *TARGETS, USUAL.builder)}
    roles = {**NEXT_ROOT["roles"]}
    for name, (ids, threshold) in people.items():
        roles[name] = {"keyids": sorted(ids) if is_sorted else ids, "threshold": threshold}
    used = {one for role in roles.values() for one in role["keyids"]}
    more: Signed = {} if profile is None else {"x-appliance-profile": profile}
    more |= {REVOKED_KEYS: revoked} if revoked or not is_sorted else {}
    keys = {one: key_to_json(every[one]) for one in used}
    return {**NEXT_ROOT, "roles": roles, "keys": keys, "expires": expires, **more}


ROOT_FILES = st.builds(
    root_file,
    st.fixed_dictionaries({"root": groups((*USUAL.root, *ROOT)), "targets": groups((*USUAL.targets, *TARGETS))}),
    TIMES,
    st.sampled_from([True, True, True, False]),
    st.sampled_from([None, None, "development", ""]),
    st.sampled_from([[], ["a" * 64], ["b" * 64], ["a" * 64, "b" * 64]]),
)


def texts_differ(one: Signed, other: Signed) -> None:
    """Unless one of them is refused: two files that differ in any byte give two texts."""
    try:
        first, second = shown(one), shown(other)
    except NotTrustedError:
        return
    assert (first == second) == (to_file(one) == to_file(other))
    assert not any("\n" in line for line in first)


PAIRS = st.tuples(TARGETS_FILES, TARGETS_FILES) | st.tuples(ROOT_FILES, ROOT_FILES)


@settings(max_examples=60, deadline=None)
@given(pair=PAIRS, data=st.data())
def test_two_requests_never_print_the_same_text(pair: tuple[Signed, Signed], data: st.DataObject) -> None:
    texts_differ(*pair)
    texts_differ(pair[0], nudged(pair[0], data))


@pytest.mark.ci
@settings(max_examples=300, deadline=None)
@given(pair=PAIRS, data=st.data())
def test_many_requests_never_print_the_same_text(pair: tuple[Signed, Signed], data: st.DataObject) -> None:
    texts_differ(*pair)
    texts_differ(pair[0], nudged(pair[0], data))


def nudged(signed: Signed, data: st.DataObject) -> Signed:
    """The file with one byte changed, or itself where that is no JSON."""
    text = bytearray(to_file(signed))
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] = data.draw(st.sampled_from(b'019abfAZ .,-_:"[]{}'))
    try:
        found = load(bytes(text), "x")
    except NotTrustedError:
        return signed
    return found if isinstance(found, dict) else signed


def test_file_that_this_program_would_write_otherwise_is_refused() -> None:
    good = request_file(NEXT)
    assert write_request(read_request(good, "x")) == good
    value = load(good, "x")
    for field, other in (("format", True), ("format", "1"), ("format", 2), ("install_by", None)):
        with pytest.raises(NotTrustedError):
            read_request(to_file({**value, field: other}), "x")
