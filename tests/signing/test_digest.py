"""SHA-256 and nothing else, in one spelling, of exactly the bytes that were asked for."""

from __future__ import annotations

import hashlib
import io

import pytest

from signing.digest import READ_BYTES, parse_digest, parse_oci_digest, sha256, sha256_stream
from signing.errors import NotTrustedError

HEX = hashlib.sha256(b"").hexdigest()


class Recorder(io.BytesIO):
    """A stream that remembers how much was asked of it, and gives less."""

    def __init__(self, data: bytes, most: int = 1 << 30) -> None:
        super().__init__(data)
        self.most, self.asked = most, list[int]()

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        self.asked.append(size)
        return super().read(min(size, self.most))


def test_digest_in_its_one_spelling_is_taken() -> None:
    assert parse_digest(HEX, "x") == HEX
    assert parse_oci_digest(f"sha256:{HEX}", "x") == HEX
    assert sha256(b"") == HEX


@pytest.mark.parametrize(
    "text",
    [
        HEX[1:],
        HEX + "0",
        HEX.upper(),
        HEX + "\n",
        "\n" + HEX,
        " " + HEX,
        "g" + HEX[1:],
        "٠" + HEX[1:],
        "",
        None,
        0,
        [HEX],
    ],
)
def test_every_other_spelling_is_refused_and_named(text: object) -> None:
    with pytest.raises(NotTrustedError) as caught:
        parse_digest(text, "where it stood")
    assert (caught.value.code, caught.value.subject) == ("digest.malformed", "where it stood")


@pytest.mark.parametrize("text", [HEX, f"sha512:{HEX}", f"SHA256:{HEX}", f" sha256:{HEX}", "sha256", "", None, 7])
def test_other_algorithm_is_refused(text: object) -> None:
    with pytest.raises(NotTrustedError) as caught:
        parse_oci_digest(text, "where it stood")
    assert (caught.value.code, caught.value.subject) == ("digest.algorithm", "where it stood")


@pytest.mark.parametrize("text", ["sha256:", f"sha256:{HEX}0", f"sha256:sha256:{HEX}", f"sha256: {HEX}"])
def test_malformed_digest_after_the_algorithm_is_refused(text: str) -> None:
    with pytest.raises(NotTrustedError) as caught:
        parse_oci_digest(text, "where it stood")
    assert (caught.value.code, caught.value.subject) == ("digest.malformed", "where it stood")


def test_refusal_shows_no_more_than_a_line_of_what_was_found() -> None:
    for parse in (parse_digest, parse_oci_digest):
        with pytest.raises(NotTrustedError) as caught:
            parse("x" * 1_000_000, "x")
        assert len(caught.value.found) == 80


@pytest.mark.parametrize("most", [1, 3, 1 << 30])
def test_stream_is_hashed_to_its_end_however_little_a_read_gives(most: int) -> None:
    data = b"0123456789"
    assert sha256_stream(Recorder(data, most)) == (sha256(data), 10)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11])
def test_stream_is_hashed_to_the_size_that_was_asked_for_and_no_further(size: int) -> None:
    stream = Recorder(b"0123456789")
    assert sha256_stream(stream, size) == (sha256(b"0123456789"[:size]), min(size, 10))
    assert stream.tell() == min(size, 10)


def test_memory_is_one_mebibyte() -> None:
    data = bytes(range(256)) * (10 << 10)  # 2.5 MiB
    for size in (None, len(data)):
        stream = Recorder(data)
        assert sha256_stream(stream, size) == (sha256(data), len(data))
        assert max(stream.asked) == READ_BYTES == 1 << 20
    assert stream.asked == [1 << 20, 1 << 20, 1 << 19]
