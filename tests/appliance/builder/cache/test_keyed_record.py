"""A record of the cache counts for its own inputs alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.builder.cache.keyed_record import read_record, write_record
from signing.digest import sha256

KEY = sha256(b"inputs")


def test_record_reads_back_under_its_key_and_under_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert read_record(path, KEY) is None
    write_record(path, KEY, {"size": 3})
    assert read_record(path, KEY) == {"key": KEY, "size": 3}
    assert read_record(path, sha256(b"others")) is None
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"size":3}', b'"text"', b'{"key": 1}', b"\xff"])
def test_what_is_no_record_counts_as_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    assert read_record(path, KEY) is None
