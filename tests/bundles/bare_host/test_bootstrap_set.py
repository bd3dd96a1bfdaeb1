"""A bundle's program is copied once, by digest, and starts with nothing but Python's own library."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bundles import bootstrap_set
from bundles.bootstrap_set import (
    bootstrap_argv,
    bootstrap_files,
    bootstrap_folder,
    copy_bootstrap_set,
    missing_chunks,
    own_wheel,
    put_root,
    remove_bootstrap_sets,
)
from bundles.bundle import Bundle
from bundles.chunks.chunk import Chunk
from bundles.oci.layout import Layout, blob_path
from signing.digest import Digest
from signing.errors import ApplianceError, BusyError, DamagedError, HostUnfitError
from tests.attacks.harness import Stick
from tests.bundles.bare_host.program import FOR_THIS_PYTHON, PYTHON, program_sources
from tests.toy import build_toy

PROGRAM = {
    "start.py",
    *(f"program/appliance/{name}" for name in ("__init__.py", "cli/__init__.py", "cli/main.py")),
    *(f"program/airgap_appliance-9.9.dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL")),
    *(f"program/helper-1.0.dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL")),
    "program/helper.py",
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    return build_toy(folder, extra=program_sources(folder), python=PYTHON)[1]


@pytest.fixture
def bundle(stick: Stick) -> Bundle:
    return stick.open().value


@pytest.fixture
def copied(stick: Stick, bundle: Bundle, tmp_path: Path) -> Path:
    return copy_bootstrap_set(bundle, stick.layout.open_chunk, tmp_path / "host")


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def nothing(_chunk: Chunk) -> int:
    raise AssertionError("the medium was read again")


def test_the_program_of_this_python_and_no_other_file_lies_there(copied: Path, bundle: Bundle, tmp_path: Path) -> None:
    assert copied == tmp_path / "host/opt/appliance/bootstrap" / bundle.manifest[:12]
    assert files_in(copied) == PROGRAM
    assert (copied / "program/helper.py").read_bytes() == b"WHO = 'the program'\n"
    assert {path.name for path in copied.parent.iterdir()} == {copied.name, ".lock"}


def test_it_starts_with_the_arguments_and_sees_pythons_library_and_itself(copied: Path) -> None:
    done = subprocess.run(bootstrap_argv(copied, ["install", "a b", "$x"]), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["arguments"] == ["install", "a b", "$x"]
    assert said["helper"] == str(copied / "program/helper.py")
    assert said["path"][-1] == str(copied / "program")
    assert [path for path in said["path"] if path.endswith(("-packages", "/bootstrap"))] == []
    assert files_in(copied) == PROGRAM  # no bytecode was written


def test_it_refuses_to_start_where_the_environment_could_bring_modules(copied: Path) -> None:
    for options in ([], ["-I"], ["-S"]):
        argv = [sys.executable, *options, str(copied / "start.py"), "install"]
        done = subprocess.run(argv, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "start it with: python3 -I -S -B\n")


def test_damaged_copy_of_a_blob_is_passed_over_where_there_is_another_one(
    stick: Stick, bundle: Bundle, tmp_path: Path
) -> None:
    chunk = next(file for file in bundle.contents.files if file.bootstrap).chunks[0]
    damaged, asked = tmp_path / "damaged", list[Chunk]()
    damaged.write_bytes(b"E" * chunk.size)

    def open_chunk(one: Chunk) -> int:
        return os.open(damaged, os.O_RDONLY) if one == chunk and not asked else stick.layout.open_chunk(one)

    def pass_over(one: Chunk, _error: DamagedError) -> bool:
        asked.append(one)
        return True

    folder = copy_bootstrap_set(bundle, open_chunk, tmp_path / "host", pass_over=pass_over)
    assert asked == [chunk]
    assert files_in(folder) == PROGRAM


def test_other_users_can_pass_through_whatever_the_umask_is(stick: Stick, bundle: Bundle, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        folder = copy_bootstrap_set(bundle, stick.layout.open_chunk, tmp_path / "host")
    finally:
        os.umask(before)
    for path in (tmp_path / "host", tmp_path / "host/opt/appliance", folder, folder / "program/appliance"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o755, path
    assert stat.S_IMODE((folder / "program/helper.py").stat().st_mode) == 0o644


def test_right_copy_is_kept_and_the_medium_is_not_read_again(copied: Path, bundle: Bundle, tmp_path: Path) -> None:
    put_root(copied, b"a root")
    before = {path: path.stat().st_ino for path in copied.rglob("*")}
    assert copy_bootstrap_set(bundle, nothing, tmp_path / "host") == copied
    assert {path: path.stat().st_ino for path in copied.rglob("*")} == before


def flip(folder: Path) -> None:
    (folder / "program/helper.py").write_bytes(b"WHO = 'the prograM'\n")


def add(folder: Path) -> None:
    (folder / "program/json.py").write_bytes(b"")


def take(folder: Path) -> None:
    (folder / "program/appliance/cli/main.py").unlink()


def link(folder: Path) -> None:
    (folder / "program/helper.py").rename(folder.parent / "elsewhere.py")
    (folder / "program/helper.py").symlink_to(folder.parent / "elsewhere.py")


def change_launcher(folder: Path) -> None:
    (folder / "start.py").write_bytes(b"print('other')")


def change_record(folder: Path) -> None:
    with (folder / "program/helper-1.0.dist-info/RECORD").open("ab") as record:
        record.write(b"more.py,,\n")


def link_folder(folder: Path) -> None:
    (folder.parent / "more").mkdir()
    (folder / "program/more").symlink_to(folder.parent / "more")


def put_queue(folder: Path) -> None:
    (folder / "program/helper.py").unlink()
    os.mkfifo(folder / "program/helper.py")


def let_others_write(folder: Path) -> None:
    (folder / "program/helper.py").chmod(0o666)


def let_others_write_folder(folder: Path) -> None:
    (folder / "program").chmod(0o777)


CHANGES = [
    flip,
    add,
    take,
    link,
    link_folder,
    put_queue,
    let_others_write,
    let_others_write_folder,
    change_launcher,
    change_record,
]


@pytest.mark.parametrize("change", CHANGES)
def test_copy_that_differs_is_made_again(
    copied: Path, stick: Stick, bundle: Bundle, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    change(copied)
    assert copy_bootstrap_set(bundle, stick.layout.open_chunk, tmp_path / "host") == copied
    assert files_in(copied) == PROGRAM
    assert not (copied / "program/helper.py").is_symlink()
    assert (copied / "program/helper.py").read_bytes() == b"WHO = 'the program'\n"
    assert not any(path.is_symlink() or path.stat().st_mode & 0o022 for path in copied.rglob("*"))
    assert copy_bootstrap_set(bundle, nothing, tmp_path / "host") == copied


@pytest.mark.parametrize("name", ["", ".partial", ".old"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "file"])
def test_what_lies_in_the_place_of_a_folder_is_removed_and_not_followed(
    copied: Path, stick: Stick, bundle: Bundle, tmp_path: Path, name: str, kind: str
) -> None:
    other = tmp_path / "other"
    copied.rename(other)
    before = files_in(other)
    planted = copied.with_name(f"{copied.name}{name}")
    if kind == "file":
        planted.write_bytes(b"")
    else:
        planted.symlink_to(other if kind == "link" else tmp_path / "nothing")
    assert copy_bootstrap_set(bundle, stick.layout.open_chunk, tmp_path / "host") == copied
    assert {path.name for path in copied.parent.iterdir()} == {copied.name, ".lock"}
    assert not copied.is_symlink()
    assert (files_in(copied), files_in(other)) == (PROGRAM, before)


def test_root_is_put_there_by_one_run_at_a_time(copied: Path) -> None:
    with bootstrap_set._locked(copied.parent), pytest.raises(BusyError):
        put_root(copied, b"a root")
    assert not (copied / "root.json").exists()


def test_what_stopped_before_the_end_has_no_name_and_the_next_run_begins_again(
    stick: Stick, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bootstrap_set, "sync_file_system", stop)
        with pytest.raises(KeyboardInterrupt):
            copy_bootstrap_set(bundle, stick.layout.open_chunk, tmp_path / "host")
    folder = bootstrap_folder(tmp_path / "host", bundle.manifest)
    assert not folder.exists()
    assert copy_bootstrap_set(bundle, stick.layout.open_chunk, tmp_path / "host") == folder
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, ".lock"}


@pytest.mark.parametrize("size", ["same", "shorter", "none"])
def test_damaged_blob_is_named_and_nothing_gets_a_name(stick: Stick, bundle: Bundle, tmp_path: Path, size: str) -> None:
    file = own_wheel(bundle.contents)
    assert file is not None
    blob = stick.path / blob_path(file.chunks[0].sha256)
    data = blob.read_bytes()
    blob.write_bytes({"same": data[:-1] + b"?", "shorter": data[:-9], "none": b""}[size])
    with pytest.raises(DamagedError) as caught:
        copy_bootstrap_set(bundle, stick.layout.open_chunk, tmp_path / "host")
    assert caught.value.subject == file.path
    assert not bootstrap_folder(tmp_path / "host", bundle.manifest).exists()


def test_full_disk_is_said_with_the_next_step(
    stick: Stick, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(bootstrap_set, "_write", full)
    with pytest.raises(ApplianceError) as caught:
        copy_bootstrap_set(bundle, stick.layout.open_chunk, tmp_path / "host")
    assert caught.value.code == "disk.full"
    assert not list((tmp_path / "host").rglob("*.partial")), "it would go on to fill the disk"


def test_room_for_what_is_unpacked_is_asked_for_before(
    stick: Stick, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=0, f_bavail=9, f_frsize=4096))
    with pytest.raises(ApplianceError) as caught:
        copy_bootstrap_set(bundle, stick.layout.open_chunk, tmp_path / "host")
    assert (caught.value.code, caught.value.found) == ("disk.full", "36864 bytes free")
    room = int(caught.value.expected.split()[2])
    assert room > len(PROGRAM - {"start.py"}) * 4096
    assert not list((tmp_path / "host").rglob("*.partial"))


def test_file_system_from_which_nothing_may_run_is_named(
    stick: Stick, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_NOEXEC, f_bavail=1 << 30, f_frsize=4096))
    with pytest.raises(HostUnfitError) as caught:
        copy_bootstrap_set(bundle, stick.layout.open_chunk, tmp_path / "host")
    assert caught.value.code == "prefix.noexec"
    assert not bootstrap_folder(tmp_path / "host", bundle.manifest).exists()


def test_python_that_the_bundle_is_not_for_is_named(bundle: Bundle) -> None:
    with pytest.raises(HostUnfitError) as caught:
        bootstrap_files(bundle.contents, (3, 99))
    assert (caught.value.code, caught.value.found) == ("bootstrap.python", "Python 3.99")
    assert PYTHON in caught.value.expected


def test_bundle_without_the_program_is_named(bundle: Bundle) -> None:
    marked = tuple(replace(file, bootstrap=False) for file in bundle.contents.files)
    with pytest.raises(HostUnfitError) as caught:
        bootstrap_files(replace(bundle.contents, files=marked), sys.version_info[:2])
    assert caught.value.code == "bootstrap.none"


def test_missing_chunks_are_those_of_the_program_alone(stick: Stick, bundle: Bundle) -> None:
    def holds(chunk: Chunk) -> bool:
        return (stick.path / blob_path(chunk.sha256)).exists()

    assert missing_chunks(bundle.contents, holds) == ()
    names = {file.path: file for file in bundle.contents.of_kind("wheel")}
    for name in ("later-1.0-py3-none-any.whl", "cp27/helper-2.0-py3-none-any.whl"):
        (stick.path / blob_path(names[f"wheels/{name}"].chunks[0].sha256)).unlink()
    assert missing_chunks(bundle.contents, holds) == ()
    needed = names[f"wheels/{FOR_THIS_PYTHON}/helper-1.0-py3-none-any.whl"].chunks
    (stick.path / blob_path(needed[0].sha256)).unlink()
    assert missing_chunks(bundle.contents, holds) == needed


def test_second_copy_at_the_same_time_is_refused(copied: Path, bundle: Bundle, tmp_path: Path) -> None:
    with bootstrap_set._locked(copied.parent), pytest.raises(BusyError):
        copy_bootstrap_set(bundle, nothing, tmp_path / "host")


def test_sets_that_nobody_needs_are_removed_with_what_was_left_behind(
    copied: Path, bundle: Bundle, tmp_path: Path
) -> None:
    for name in ("0123456789ab", "0123456789ab.partial", "fedcba987654.old"):
        (copied.parent / name).mkdir()
    (copied.parent / "note").symlink_to(tmp_path)
    remove_bootstrap_sets(tmp_path / "host", [bundle.manifest])
    assert {path.name for path in copied.parent.iterdir()} == {copied.name, ".lock"}
    remove_bootstrap_sets(tmp_path / "host", [Digest("0" * 64)])
    assert not copied.exists()
    assert tmp_path.is_dir()
    remove_bootstrap_sets(tmp_path / "another host", [])


def test_layout_is_only_read(stick: Stick, bundle: Bundle, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in stick.path.rglob("*")}
    copy_bootstrap_set(bundle, Layout(stick.path).open_chunk, tmp_path / "host")
    assert {path: path.stat().st_mtime_ns for path in stick.path.rglob("*")} == before
