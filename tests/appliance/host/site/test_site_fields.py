"""A file that a person writes: every fault has a place, and the schema accepts what the parser accepts."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from appliance.host.site.config import FIELDS, RESERVED, parse_site, site_schema
from appliance.host.site.field_kinds import OneOf, WholeNumber, Word, YesNo
from appliance.host.site.site_fields import NamedGroups, SiteField, fields_schema, read_values
from signing.errors import UsageError
from tests.json_schema import is_valid, require_valid

PERSON = (SiteField("age", WholeNumber(0, 99), 0, "Years."), SiteField("tall", YesNo(), False, "Or not."))
GROUPED = (
    SiteField("port", WholeNumber(1, 9), 5, "A number."),
    SiteField("watch.after", WholeNumber(0, 99), 7, "Another."),
    SiteField("watch.mode", OneOf(("count", "off")), "off", "A word."),
    SiteField("name", Word(re.compile(r"[a-z]+\Z"), "letters"), "", "A text."),
    SiteField("people", NamedGroups(Word(re.compile(r"[a-z]+\Z"), "letters"), PERSON, 2), {}, "Names."),
)


def faults(text: str) -> list[tuple[str, int, int]]:
    return [(one.name, one.line, one.column) for one in read_values(text.encode(), GROUPED, ("later",), 1000).faults]


def test_values_of_groups_are_read_and_defaults_stand_where_nothing_is() -> None:
    found = read_values(b"watch:\n  after: 3\n", GROUPED, (), 1000)
    assert found.values == {"port": 5, "watch.after": 3, "watch.mode": "off", "name": "", "people": {}}
    assert found.faults == ()
    assert read_values(b"watch:\n", GROUPED, (), 1000).values["watch.after"] == 7


def test_entries_that_a_person_names_hold_what_the_file_has() -> None:
    text = b"people:\n  ann: {age: 7}\n  ben:\n"
    found = read_values(text, GROUPED, (), 1000)
    assert (found.values["people"], found.faults) == ({"ann": {"age": 7}, "ben": {}}, ())
    assert found.lines["people"] == 1
    assert read_values(b"people:\n", GROUPED, (), 1000).values["people"] == {}


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("port: 0\n", [("port", 1, 7)]),
        ("# why\n\nport:   70\n", [("port", 3, 9)]),
        ("port: true\n", [("port", 1, 7)]),
        ("port:\n", [("port", 1, 6)]),
        ("watch: 3\n", [("watch", 1, 8)]),
        ("watch:\n  after: 100\n  mode: on\n", [("watch.after", 2, 10), ("watch.mode", 3, 9)]),
        ("watch:\n  colour: 1\n", [("watch.colour", 2, 3)]),
        ("watch.after: 3\n", [("watch.after", 1, 1)]),
        ("later: 1\n", [("later", 1, 1)]),
        ("port: 1\nport: 2\n", [("port", 2, 1)]),
        ("watch: {after: 1, after: 2}\n", [("watch.after", 1, 19)]),
        ("port: 2001-99-99\nname: A\n", [("port", 1, 7), ("name", 2, 7)]),
        ("port: !!python/object:os.system {}\n", [("port", 1, 7)]),
        ("port: 1\n---\nport: 2\n", [("", 2, 1)]),
        ("a: [\n", [("", 2, 1)]),
        ("[1]\n", [("", 1, 1)]),
        ("true: 1\n", [("", 1, 1)]),
        ("<<: {port: 1}\n", [("", 1, 1)]),
        ("!!python/object:os.system {}\n", [("", 1, 1)]),
        ("name: |\n  abc\n", [("name", 1, 7)]),
        ("name: x\t\x07\n", [("", 0, 0)]),
        ("x" * 1001, [("", 0, 0)]),
        ("people: 3\n", [("people", 1, 9)]),
        ("people: [ann]\n", [("people", 1, 9)]),
        ("people: {a: {}, b: {}, c: {}}\n", [("people", 1, 9)]),
        ("people:\n  ann: {age: 100, tall: 1}\n", [("people.ann.age", 2, 14), ("people.ann.tall", 2, 25)]),
        ("people: {Ann: {}, ann@home: {}}\n", [("people", 1, 10), ("people", 1, 19)]),
        ("people: {ann: {}, ann: {}}\n", [("people.ann", 1, 19)]),
        ("people: {ann: {age: 1, age: 2}}\n", [("people.ann.age", 1, 24)]),
        ("people: {ann: {eye: red}}\n", [("people.ann.eye", 1, 16)]),
        ("people: {ann: 5, 5: {}}\n", [("people.ann", 1, 15), ("people", 1, 18)]),
        ("people.ann: {}\n", [("people.ann", 1, 1)]),
    ],
)
def test_fault_has_its_line_and_column(text: str, places: list[tuple[str, int, int]]) -> None:
    assert faults(text) == places


def test_every_fault_of_a_file_is_found_in_the_order_of_its_lines() -> None:
    text = b"energy: {}\nslots: many\nport: 70000\nport: 1\ncolour: red\n"
    with pytest.raises(UsageError) as caught:
        parse_site(text)
    subjects = [error.subject for error in (caught.value, *caught.value.others)]
    assert subjects == [
        "site.yaml:1:1 field energy",
        "site.yaml:2:8 field slots",
        "site.yaml:3:7 field port",
        "site.yaml:4:1 field port",
        "site.yaml:5:1 field colour",
    ]


def is_accepted(value: Any) -> bool:
    try:
        parse_site(yaml.safe_dump(value).encode())
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_schema_accepts_what_the_parser_accepts(field: SiteField) -> None:
    samples = [-1, 0, 1, 63, 64, 256, 257, 65535, 65536, 1 << 24, (1 << 24) + 1, True, 1.5, "", "a", "A", "a" * 63]
    # No text that ends with a line break: `$` of a schema is the end of the text, and of Python's `re` it is not.
    samples += ["a" * 64, "127.0.0.1", "127.9.9.9", "10.0.0.1", "::1", "::2", "count", "off", [], {}, [1], None]
    samples += [{"m": {}}, {"m": None}, {"m@a": {}}, {"M": {}}, {"m": {"pin": True}}, {"m": {"pin": 1}}]
    samples += [
        {"m": {"keep_alive": 0}},
        {"m": {"min_level": "E3"}},
        {"m": {"min_level": "E4"}},
        {"m": {"x": 1}},
        {"": {}},
    ]
    samples += ["/etc/a.pem", "a.pem", "/a b", ["https://a.example"], ["*"], ["https://a.example/x"]]
    for sample in samples:
        value: Any = sample
        for part in reversed(field.name.split(".")):
            value = {part: value}
        assert is_valid(value, site_schema()) == is_accepted(value), (field.name, sample)


def test_schema_is_one_and_names_every_field_with_its_default() -> None:
    require_valid({}, site_schema())
    require_valid({"watch": {"after": 3}}, fields_schema("grouped", GROUPED))
    assert not is_valid({"watch": {"later": 3}}, fields_schema("grouped", GROUPED))
    text = json.dumps(site_schema())
    assert [field.name for field in FIELDS if f'"{field.name.rpartition(".")[2]}"' not in text] == []
    assert not any(is_valid({name: None}, site_schema()) for name in RESERVED)
