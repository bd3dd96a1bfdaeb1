"""T24: a wheel of some kilobytes that becomes as large as a disk, or a deflate stream that never ends."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.host.layout.prefix import Prefix
from appliance.host.release.wheel_size import check_unpacked
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import Contents, File
from signing.digest import sha256
from tests.appliance.web import wheel
from tests.attacks.harness import Stick, guard_off, refused, row

ROW = row(24)
NAME = "honest-1.0-py3-none-any.whl"
BIG = 64 << 20
MEMBER = "honest.py"


def lie_about_size(data: bytes) -> bytes:
    """Claim in the archive's directory that a big member is small."""
    at = data.rindex(MEMBER.encode(), 0, data.rindex(b"PK\x05\x06")) - 46
    while data[at : at + 4] != b"PK\x01\x02":
        at = data.rindex(b"PK\x01\x02", 0, at)
    return data[: at + 24] + struct.pack("<I", 20) + data[at + 28 :]


def with_member(data: bytes, name: str, body: bytes) -> bytes:
    out = io.BytesIO(data)
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, body)
    return out.getvalue()


def swollen(data: bytes) -> bytes:
    """The same RECORD, and another, much larger member under its name."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, bytes(BIG) if info.filename == MEMBER else old.read(info))
    return out.getvalue()


@pytest.fixture
def check(stick: Stick, tmp_path: Path) -> Callable[[bytes], int]:
    """A release that holds one signed wheel; returns what checking it reads."""
    prefix = Prefix.at(tmp_path / "host")
    release = prefix.releases / "1.0.0-0123456789ab"
    (release / "wheels").mkdir(parents=True)
    contents: Contents = stick.open().value.contents

    def act(data: bytes, disk_bytes: int = 1 << 30) -> int:
        path = release / "wheels" / NAME
        path.write_bytes(data)
        chunks = (Chunk(sha256(data), len(data)),)
        with zipfile.ZipFile(path) as archive:
            record = sha256(archive.read("honest-1.0.dist-info/RECORD"))
        file = File(f"wheels/{NAME}", "wheel", 0o644, len(data), sha256(data), chunks, record=record)
        needs = replace(contents.needs, disk_bytes=disk_bytes)
        return check_unpacked(prefix, release, replace(contents, files=(file,), needs=needs))

    return act


def test_unattacked_wheel_becomes_what_its_record_lists(check: Callable[[bytes], int]) -> None:
    assert 300 < check(wheel("honest")) < 2000


def test_attacked_by_a_member_that_is_larger_than_in_its_record(check: Callable[[bytes], int]) -> None:
    data = swollen(wheel("honest"))
    assert len(data) < 100_000
    refused(ROW, lambda: check(data), "wheel.bomb", f"wheels/{NAME}!{MEMBER}")


def test_attacked_by_a_member_that_no_record_lists(check: Callable[[bytes], int]) -> None:
    data = with_member(wheel("honest"), "filler.bin", bytes(BIG))
    refused(ROW, lambda: check(data), "wheel.bomb", f"wheels/{NAME}!filler.bin")


def test_attacked_by_wheels_that_need_more_room_than_was_signed(
    check: Callable[..., int],
) -> None:
    data = wheel("honest", files={MEMBER: bytes(BIG)})
    assert check(data) > BIG
    refused(ROW, lambda: check(data, disk_bytes=1 << 20), "wheel.bomb", "wheels")


def test_attacked_by_a_directory_that_claims_a_small_size_nothing_large_is_read(
    check: Callable[[bytes], int],
) -> None:
    # Python's reader stops at the claimed size and finds a wrong checksum: the wheel is damaged.
    data = lie_about_size(wheel("honest", files={MEMBER: bytes(BIG)}))
    with pytest.raises(Exception, match="contents.file-changed") as caught:
        check(data)
    assert getattr(caught.value, "exit_code", 0) == 3


def test_unguarded_the_bomb_would_be_unpacked(check: Callable[[bytes], int]) -> None:
    with guard_off(ROW.guard, lambda *_: 0):
        assert check(swollen(wheel("honest"))) < 2000
