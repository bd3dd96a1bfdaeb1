"""T15: one text that two parsers read differently."""

from __future__ import annotations

import json

import pytest

from tests.attacks.harness import Stick, guard_off, refused, row

ROW = row(15)
START = b'{"signatures":'
"""How every metadata file begins."""
AMBIGUOUS = {
    "a space": (START, b'{ "signatures":'),
    "a byte order mark": (START, b"\xef\xbb\xbf" + START),
    "a key twice": (b'"version":2', b'"version":2,"version":2'),
    "a key twice with another value": (b'"version":2', b'"version":1,"version":2'),
    "an escape that need not be": (b'"_type":"targets"', b'"_type":"\\u0074argets"'),
    "a float": (b'"version":2', b'"version":2.0'),
    "an exponent": (b'"version":2', b'"version":2e0'),
    "a minus zero": (b'"version":2', b'"version":-0'),
    "not a number": (b'"version":2', b'"version":NaN'),
    "a number without end": (b'"version":2', b'"version":2' + b"0" * 5000),
    "a lone surrogate": (b'"_type":"targets"', b'"_type":"targets","x":"\\ud800"'),
    "bytes that are no UTF-8": (b'"_type":"targets"', b'"_type":"targets","x":"\xff"'),
    "an overlong spelling": (b'"_type":"targets"', b'"_type":"targets","x":"\xc0\xaf"'),
}
SAME_VALUE = ("a space", "a key twice", "a key twice with another value", "an escape that need not be")
"""What a lenient parser reads as the very value that was signed."""


def write_otherwise(stick: Stick, how: str) -> None:
    """Write the targets file in another form; its signatures, over the value, stay."""
    repository, (old, new) = stick.repository, AMBIGUOUS[how]
    data = repository.files[repository.targets_name]
    assert data.count(old) == 1
    repository.put_targets(data.replace(old, new), repository.targets_version)
    stick.save()


def test_unattacked_canonical_file_verifies(stick: Stick) -> None:
    stick.verify()


@pytest.mark.parametrize("how", AMBIGUOUS)
def test_attacked_by_another_form(stick: Stick, how: str) -> None:
    write_otherwise(stick, how)
    refused(ROW, stick.verify, "json.refused", "2.targets.json")


def test_attacked_by_fields_in_another_order(stick: Stick) -> None:
    repository = stick.repository
    value = json.loads(repository.files[repository.targets_name])
    turned = json.dumps(dict(reversed(value.items())), separators=(",", ":"), ensure_ascii=False).encode()
    repository.put_targets(turned, repository.targets_version)
    stick.save()
    refused(ROW, stick.verify, "json.refused", "2.targets.json")


@pytest.mark.parametrize("tail", [b"\n", b" ", b"{}", b"\0", b"]"])
def test_attacked_by_data_after_the_end(stick: Stick, tail: bytes) -> None:
    repository = stick.repository
    repository.put_targets(repository.files[repository.targets_name] + tail, repository.targets_version)
    stick.save()
    refused(ROW, stick.verify, "json.refused", "2.targets.json")


@pytest.mark.parametrize("how", SAME_VALUE)
def test_unguarded_a_lenient_parser_takes_it(stick: Stick, how: str) -> None:
    write_otherwise(stick, how)
    with guard_off(ROW.guard, lambda data, *_: json.loads(data)):
        stick.verify()
