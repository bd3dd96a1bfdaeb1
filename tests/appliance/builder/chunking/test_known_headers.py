"""A parsed header is used again for the same bytes only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.builder.chunking import known_headers
from appliance.builder.chunking.known_headers import known_header, parse_header
from tests.sim.gguf_files import gguf, string_key

TENSORS = [("blk.0.a", 4096)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf([string_key("tokenizer.chat_template", "{{ x }}")], TENSORS))
    return path


def test_header_of_the_same_file_is_used_again(model: Path) -> None:
    with model.open("rb") as stream:
        assert known_header(stream) is None
        header, head = parse_header(stream, "m")
        assert known_header(stream) is header
    assert head == model.read_bytes()[: header.data_start]
    with model.open("rb") as stream:
        assert known_header(stream) is header


def test_header_of_another_file_is_not_used(model: Path, tmp_path: Path) -> None:
    with model.open("rb") as stream:
        parse_header(stream, "m")
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(model.read_bytes())
    with copy.open("rb") as stream:
        assert known_header(stream) is None


def test_header_is_not_used_where_its_bytes_changed_and_the_times_did_not(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_headers, "file_state", lambda status: (status.st_ino,))
    with model.open("rb") as stream:
        parse_header(stream, "m")
    data = model.read_bytes().replace(b"{{ x }}", b"{{ y }}")
    descriptor = os.open(model, os.O_WRONLY)
    os.write(descriptor, data)
    os.close(descriptor)
    with model.open("rb") as stream:
        assert known_header(stream) is None
