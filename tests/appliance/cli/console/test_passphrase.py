"""A passphrase comes from the first line of a descriptor, and one that people cannot have meant is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.cli.console.passphrase import MAX_SECRET_BYTES, passphrase_source
from signing.errors import UsageError


def read(folder: Path, data: bytes) -> str:
    file = folder / "secret"
    file.write_bytes(data)
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return passphrase_source(descriptor)("the key")
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("data", "secret"),
    [
        (b"correct horse\n", "correct horse"),
        (b"correct horse\r\nmore", "correct horse"),
        (b"correct horse", "correct horse"),
        (b"gr\xc3\xbc\xc3\x9fe\n", "grüße"),
        (b" with spaces \n", " with spaces "),
        (b"x" * MAX_SECRET_BYTES + b"\n", "x" * MAX_SECRET_BYTES),
    ],
)
def test_first_line_is_the_passphrase(tmp_path: Path, data: bytes, secret: str) -> None:
    assert read(tmp_path, data) == secret


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"\xef\xbb\xbfcorrect horse\n", "a byte order mark of UTF-8 at the start"),
        ("correct horse\n".encode("utf-16"), "a byte order mark of UTF-16 at the start"),
        ("correct horse\n".encode("utf-16-le"), "a zero byte, as in UTF-16"),
        ("grüße\n".encode("latin-1"), "bytes that are no UTF-8, as in Latin-1"),
        (b"\ncorrect horse\n", "an empty first line"),
        (b"", "an empty first line"),
        (b"x" * (MAX_SECRET_BYTES + 1), f"more than {MAX_SECRET_BYTES} bytes without a newline"),
    ],
)
def test_what_is_wrong_with_a_passphrase_is_named_and_no_part_of_it_shown(
    tmp_path: Path, data: bytes, found: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, data)
    error = caught.value
    assert (error.code, error.exit_code, error.found) == ("key.passphrase-fd", 2, found)
    assert error.hint
    assert not [part for part in ("correct", "horse", "gr", "\ufeff", "0xfc") if part in error.found + error.hint]


def test_closed_descriptor_is_named_as_that() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with pytest.raises(UsageError) as caught:
        passphrase_source(reader)("the key")
    assert caught.value.found == "no open descriptor"
