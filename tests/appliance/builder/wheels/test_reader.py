"""Looking into wheels: real ones made here, and ones that somebody prepared to hurt."""

from __future__ import annotations

import base64
import hashlib
import io
import time
import zipfile
from pathlib import Path

import pytest

from appliance.builder.assembly.secret_scan import KEYS
from appliance.builder.assembly.secret_scan import _search_archive as search_wheel
from appliance.builder.cache.built_entries import build_once
from appliance.builder.cache.content_store import Cache
from appliance.builder.lock.pinned_fetch import extract
from appliance.builder.wheels import reader
from appliance.builder.wheels.member_cache import cached_members
from appliance.builder.wheels.reader import licence_texts, unpacked_bytes, wheel_members, wheel_metadata, wheel_record
from bundles.contents.wheel_record import RecordEntry, parse_record
from bundles.fsverity_digest import digest_of
from signing.digest import sha256
from signing.errors import ApplianceError, DamagedError, NotTrustedError

INFO = "thing-1.0.dist-info"
METADATA = "Metadata-Version: 2.4\nName: Thing\nVersion: 1.0\n"


def _hashed(path: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(data)}\n"


def _wheel(path: Path, files: dict[str, bytes], metadata: str = METADATA, modes: dict[str, int] | None = None) -> Path:
    files = {**files, f"{INFO}/METADATA": metadata.encode()}
    record = "".join(_hashed(name, data) for name, data in files.items()) + f"{INFO}/RECORD,,\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (*files.items(), (f"{INFO}/RECORD", record.encode())):
            info = zipfile.ZipInfo(name)
            info.external_attr = (modes or {}).get(name, 0o100644) << 16
            archive.writestr(info, data)
    return path


def test_record_digest_is_that_of_the_bytes_in_the_wheel(tmp_path: Path) -> None:
    path = _wheel(tmp_path / "thing-1.0-py3-none-any.whl", {"thing.py": b"x = 1\n"})
    with zipfile.ZipFile(path) as archive:
        record = archive.read(f"{INFO}/RECORD")

    assert wheel_record(path) == sha256(record)
    entries = parse_record(record, f"{INFO}/RECORD", "thing")
    assert entries[0] == RecordEntry("thing.py", sha256(b"x = 1\n"), 6)
    assert [entry.path for entry in entries] == ["thing.py", f"{INFO}/METADATA"]


def test_record_with_quoted_paths_and_windows_line_ends_is_read() -> None:
    line = _hashed('"a,b.py"', b"1").strip()

    entries = parse_record(f"{line}\r\n\r\n{INFO}/RECORD,,\r\n".encode(), f"{INFO}/RECORD", "thing")
    assert entries == (RecordEntry("a,b.py", sha256(b"1"), 1),)


@pytest.mark.parametrize(
    "record",
    [
        "thing.py,,\n",
        "thing.py,md5=1B2M2Y8AsgTpgAmY7PhCfg,0\n",
        "thing.py,sha256=AAAA,0\n",
        "thing.py,sha256=!!!!,0\n",
        "thing.py\n",
        _hashed("thing.py", b"1") * 2,
        _hashed("thing.py", b"1").replace(",1\n", ",\n"),
        _hashed("thing.py", b"1").replace(",1\n", ",-1\n"),
        '"thing.py\n',
        "RECORD,,\n",
        _hashed("thing.py", b"1").replace(",1\n", "," + "1" * 5000 + "\n"),
        _hashed("/etc/passwd", b"1"),
        _hashed("../thing.py", b"1"),
        "x" * 200_000 + ",,\n",
    ],
)
def test_record_that_leaves_something_open_is_refused(record: str) -> None:
    with pytest.raises(NotTrustedError):
        parse_record(record.encode(), f"{INFO}/RECORD", "thing")


def test_record_that_is_no_text_is_refused() -> None:
    with pytest.raises(NotTrustedError):
        parse_record(b"\xff\xfe", f"{INFO}/RECORD", "thing")


@pytest.mark.parametrize(
    "record", [b"\xff\xfe", b"x" * 200_000 + b",,\n", b"thing.py,,\n", b"", f"{INFO}/RECORD,,\n".encode()]
)
def test_wheel_that_every_host_would_refuse_is_not_packed(tmp_path: Path, record: bytes) -> None:
    path = tmp_path / "w.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thing.py", b"1")
        archive.writestr(f"{INFO}/METADATA", METADATA)
        archive.writestr(f"{INFO}/RECORD", record)
    with pytest.raises(NotTrustedError):
        wheel_record(path)


def test_members_carry_size_digests_and_mode(tmp_path: Path) -> None:
    files = {"llama_cpp/lib/llama-server": b"p" * 5000, "llama_cpp/lib/libllama.so": b"l", "llama_cpp/x.py": b""}
    path = _wheel(tmp_path / "w.whl", files, modes={"llama_cpp/lib/llama-server": 0o100755})
    library, program = wheel_members(path)

    assert (library.path, library.size, library.mode) == ("llama_cpp/lib/libllama.so", 1, 0o644)
    assert (program.path, program.size, program.mode) == ("llama_cpp/lib/llama-server", 5000, 0o755)
    assert program.sha256 == sha256(b"p" * 5000)
    assert program.fsverity == digest_of(io.BytesIO(b"p" * 5000), 5000)


def test_member_that_is_a_symlink_is_refused(tmp_path: Path) -> None:
    name = "llama_cpp/lib/libllama.so"
    path = _wheel(tmp_path / "w.whl", {name: b"/etc/passwd"}, modes={name: 0o120777})

    with pytest.raises(NotTrustedError, match="libllama.so"):
        wheel_members(path)


def test_member_in_a_deeper_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotTrustedError):
        wheel_members(_wheel(tmp_path / "w.whl", {"llama_cpp/lib/deep/libx.so": b""}))


def test_member_above_the_cap_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _wheel(tmp_path / "w.whl", {"llama_cpp/lib/libx.so": bytes(1001)})
    monkeypatch.setattr(reader, "MAX_MEMBER_BYTES", 1000)

    with pytest.raises(NotTrustedError, match="1001 bytes"):
        wheel_members(path)


def test_member_that_is_larger_than_its_stated_size_is_refused(tmp_path: Path) -> None:
    path = _wheel(tmp_path / "w.whl", {"llama_cpp/lib/libx.so": bytes(1 << 20)})
    data = path.read_bytes()
    path.write_bytes(data.replace((1 << 20).to_bytes(4, "little"), (5).to_bytes(4, "little")))

    with pytest.raises(DamagedError):
        wheel_members(path)


def test_metadata_above_the_cap_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _wheel(tmp_path / "w.whl", {}, METADATA + "\n" + "x" * 2000)
    monkeypatch.setattr(reader, "MAX_TEXT_BYTES", 1000)

    with pytest.raises(NotTrustedError):
        wheel_metadata(path)


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ("License-Expression: Apache-2.0 OR MIT\nLicense: other\n", "Apache-2.0 OR MIT"),
        ("License: MIT\n", "MIT"),
        ("Classifier: License :: OSI Approved :: MIT License\nClassifier: Topic :: X\n", "MIT License"),
        ("License: a whole\n text\nClassifier: License :: OSI Approved :: BSD License\n", "BSD License"),
        ("", ""),
    ],
)
def test_licence_is_the_most_exact_one_of_the_metadata(fields: str, licence: str, tmp_path: Path) -> None:
    assert wheel_metadata(_wheel(tmp_path / "w.whl", {}, METADATA + fields)) == ("Thing", "1.0", licence)


def test_licence_texts_are_found_by_folder_and_by_name(tmp_path: Path) -> None:
    files = {
        f"{INFO}/licenses/a/LICENSE": b"1",
        f"{INFO}/COPYING.txt": b"2",
        f"{INFO}/top_level.txt": b"",
        "LICENSE": b"3",
    }

    assert licence_texts(_wheel(tmp_path / "w.whl", files)) == [("COPYING.txt", b"2"), ("a/LICENSE", b"1")]


@pytest.mark.parametrize("name", ["../x.py", "/etc/x", "a/../../x", "a\\b"])
def test_wheel_with_a_path_that_leaves_it_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotTrustedError, match="wheel.refused"):
        wheel_metadata(_wheel(tmp_path / "w.whl", {name: b""}))


def test_wheel_with_a_member_twice_is_refused(tmp_path: Path) -> None:
    path = _wheel(tmp_path / "w.whl", {})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(f"{INFO}/METADATA", "Name: other\nVersion: 2\n")

    with pytest.raises(NotTrustedError, match="each member once"):
        wheel_metadata(path)


def test_wheel_with_too_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_MEMBERS", 2)

    with pytest.raises(NotTrustedError):
        wheel_metadata(_wheel(tmp_path / "w.whl", {"a.py": b""}))


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x03\x04" + bytes(50)])
def test_file_that_is_no_zip_is_damaged(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.whl").write_bytes(data)

    with pytest.raises(DamagedError) as raised:
        wheel_record(tmp_path / "w.whl")

    assert raised.value.exit_code == 3


def test_zip_without_a_dist_info_is_no_wheel(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as archive:
        archive.writestr("a.py", "")

    with pytest.raises(DamagedError, match="0 dist-info folders"):
        wheel_record(tmp_path / "w.whl")


def test_wheel_with_flipped_bytes_is_damaged(tmp_path: Path) -> None:
    path = _wheel(tmp_path / "w.whl", {"llama_cpp/lib/libx.so": bytes(range(256)) * 40})
    data = bytearray(path.read_bytes())
    data[120] ^= 1
    path.write_bytes(data)

    with pytest.raises(DamagedError):
        wheel_members(path)


def test_a_wheel_that_was_exchanged_is_looked_into_again(tmp_path: Path) -> None:
    path, other = _wheel(tmp_path / "w.whl", {}), _wheel(tmp_path / "x.whl", {"more.py": b"1"})
    before = wheel_record(path), unpacked_bytes(path)
    other.replace(path)
    assert wheel_record(path) != before[0]
    assert unpacked_bytes(path) > before[1]


def test_members_of_a_wheel_are_remembered_by_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, path = Cache(tmp_path / "cache"), _wheel(tmp_path / "w.whl", {"llama_cpp/lib/libx.so": b"library"})
    found = wheel_members(path)
    digest = sha256(path.read_bytes())
    assert cached_members(path, digest, "llama_cpp/lib", cache) == found
    monkeypatch.setattr("appliance.builder.wheels.member_cache.wheel_members", lambda *_: ())
    assert cached_members(path, digest, "llama_cpp/lib", cache) == found
    assert cached_members(path, sha256(b"another wheel"), "llama_cpp/lib", cache) == ()
    assert cached_members(path, digest, "other", cache) == ()


@pytest.mark.parametrize("spoiled", [b"", b"[", b"[5]", b"5", b'[{"path": "x"}]'])
def test_memory_of_a_wheels_members_that_was_spoiled_is_made_anew(tmp_path: Path, spoiled: bytes) -> None:
    cache, path = Cache(tmp_path / "cache"), _wheel(tmp_path / "w.whl", {"llama_cpp/lib/libx.so": b"library"})
    digest = sha256(path.read_bytes())
    found = cached_members(path, digest, "llama_cpp/lib", cache)
    [memory] = cache.folder("members").iterdir()
    memory.write_bytes(spoiled)
    assert cached_members(path, digest, "llama_cpp/lib", cache) == found


def test_what_is_kept_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[list[str]] = []

    def sync(folder: Path) -> None:
        synced.append(sorted(path.name for path in folder.iterdir()))

    monkeypatch.setattr("appliance.builder.cache.built_entries.sync_file_system", sync)
    for _ in range(2):
        assert build_once(tmp_path, "thing", lambda path: path.mkdir()) == tmp_path / "thing"
    assert synced == [["thing.lock", "thing.unfinished"]]


@pytest.mark.parametrize("at", range(4))
def test_wheel_whose_directory_was_spoiled_is_damaged_and_never_our_bug(tmp_path: Path, at: int) -> None:
    whole = _wheel(tmp_path / "w.whl", {"thing.py": b"x = 1\n" * 100}).read_bytes()
    end = whole.rindex(b"PK\x05\x06")
    spoiled = bytearray(whole)
    spoiled[end + 16 + at] ^= 0xFF  # where the directory begins
    (tmp_path / "w.whl").write_bytes(spoiled)
    with pytest.raises(DamagedError):
        wheel_record(tmp_path / "w.whl")
    with pytest.raises(ApplianceError) as caught:
        extract(tmp_path / "w.whl", "thing.py", Cache(tmp_path / "cache"))
    assert caught.value.code == "source.unreadable"
    with pytest.raises(NotTrustedError):
        list(search_wheel("wheels/w.whl", tmp_path / "w.whl", KEYS))


def test_member_twice_among_many_is_found_at_once(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as archive:
        for number in range(20_000):
            archive.writestr(f"a/folder/of/many/{number:06}.py", "")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(f"a/folder/of/many/{number:06}.py", "")
    began = time.process_time()
    with pytest.raises(NotTrustedError, match="each member once"):
        wheel_record(tmp_path / "w.whl")
    assert (
        time.process_time() - began < 4
    )  # comparing each with all others takes three times as long, and grows with both


def test_field_that_stands_twice_but_may_not_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="no Name or Version"):
        wheel_metadata(_wheel(tmp_path / "w.whl", {}, METADATA + "Version: 2.0\n"))


def test_metadata_of_parts_within_parts_is_refused(tmp_path: Path) -> None:
    parts = "".join(f"Content-Type: multipart/mixed; boundary=b{number}\nx\n--b{number}\n" for number in range(2000))
    with pytest.raises(NotTrustedError, match="parts within parts"):
        wheel_metadata(_wheel(tmp_path / "w.whl", {}, METADATA + parts))


def test_description_of_the_metadata_is_not_read(tmp_path: Path) -> None:
    assert wheel_metadata(_wheel(tmp_path / "w.whl", {}, METADATA + "\nLicense: MIT\n")) == ("Thing", "1.0", "")
