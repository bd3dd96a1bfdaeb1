"""The digest of a host's files counts path, type, mode, owner and content, and nothing that is in volatile.txt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bed import files_digest
from tests.bed.files_digest import Known, differences, digest_of, files_below, read_patterns


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "etc").mkdir(parents=True)
    (folder / "etc" / "name").write_text("host")
    (folder / "etc" / "link").symlink_to("name")
    return folder


def listed(root: Path) -> dict[str, str]:
    return files_below(str(root), [])


def test_every_path_is_described_by_type_mode_owner_and_content(root: Path) -> None:
    (root / "etc" / "name").chmod(0o640)
    owner = f"{os.getuid()}:{os.getgid()}"
    files = listed(root)
    assert list(files) == ["/etc", "/etc/link", "/etc/name"]
    assert files["/etc/link"] == f"l 0777 {owner} name"
    assert files["/etc/name"].startswith(f"f 0640 {owner} ")


@pytest.mark.parametrize(
    "change", ["printf home >name", "chmod 0600 name", "ln -sfn other link", "touch new", "rm link", "mkfifo pipe"]
)
def test_any_change_changes_the_digest(root: Path, change: str) -> None:
    before = listed(root)
    subprocess.run(["sh", "-ec", change], cwd=root / "etc", check=True)
    assert digest_of(listed(root)) != digest_of(before)
    assert len(differences(before, listed(root))) == 1


def test_times_do_not_count(root: Path) -> None:
    before = listed(root)
    os.utime(root / "etc" / "name", (0, 0))
    assert listed(root) == before


def test_what_is_volatile_is_left_out_with_all_that_is_in_it(root: Path) -> None:
    for name in (
        "var/log/journal/0123/system.journal",
        "var/cache/ldconfig/aux-cache",
        "etc/machine-id",
        "var/log/other",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    found = files_below(str(root), read_patterns())
    assert [path for path in found if path.startswith("/var/")] == ["/var/cache", "/var/log", "/var/log/other"]
    assert "/etc/machine-id" not in found


@pytest.mark.parametrize("spelled", ["/", "//"])
def test_whole_file_system_is_described_too(spelled: str) -> None:
    # Of this machine's own only the top, and no file, which might be large or private.
    entries = list(os.scandir("/"))
    files = [f"/{entry.name}" for entry in entries if entry.is_file(follow_symlinks=False)]
    expected = {f"/{entry.name}" for entry in entries} - set(files)
    assert files_below(spelled, ["/*/*", *files]).keys() == expected


def test_slash_at_the_end_of_the_root_does_not_count(root: Path) -> None:
    assert files_below(f"{root}/", []) == listed(root)


def test_known_file_is_read_once_and_a_new_one_each_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def note(path: str) -> str:
        read.append(path)
        return "digest"

    monkeypatch.setattr(files_digest, "_sha256", note)
    time.sleep(0.02)
    for known in (Known(time.time_ns()), Known()):
        read.clear()
        files_below(str(root), [], known)
        files_below(str(root), [], known)
        assert len(read) == (1 if known.before_ns else 2)


def test_script_prints_the_same_on_a_host_with_nothing_installed(root: Path) -> None:
    script = [sys.executable, "-I", files_digest.__file__, str(root), files_digest.VOLATILE]
    printed = subprocess.run(script, capture_output=True, text=True, check=True)
    assert json.loads(printed.stdout) == files_below(str(root), read_patterns())
