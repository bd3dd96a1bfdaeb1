"""A host's tree: where its files lie, who may read them, and which paths are refused."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

import pytest

from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.prefix import Prefix
from appliance.host.release.release import open_current
from appliance.host.trust.root_choice import choose_root
from signing.errors import NotTrustedError, UsageError
from tests.toy import NOW


def test_folders_have_their_modes_under_every_umask(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        prefix = Prefix.at(tmp_path / "deep" / "host")
        prefix.create()
    finally:
        os.umask(before)
    assert {
        stat.S_IMODE(path.stat().st_mode) for path in (prefix.root, prefix.releases, prefix.models, prefix.etc)
    } == {0o755}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (prefix.journal, prefix.runs, prefix.audit)} == {0o700}


def test_a_folder_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    prefix = Prefix.at(tmp_path)
    prefix.create()
    prefix.etc.chmod(0o750)
    prefix.create()
    assert stat.S_IMODE(prefix.etc.stat().st_mode) == 0o750


def test_prefix_that_is_a_file_or_lies_below_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError) as caught:
        Prefix.at(tmp_path / "file")
    assert caught.value.code == "prefix.not-a-folder"
    with pytest.raises(UsageError):
        Prefix.at(tmp_path / "file" / "below").create()


@pytest.mark.parametrize("letter", [":", "%", "{", '"', "'", "\\", "$", "`", "\n", "\x1b"])
def test_prefix_with_a_character_of_shells_paths_or_templates_is_refused(tmp_path: Path, letter: str) -> None:
    with pytest.raises(UsageError) as caught:
        Prefix.at(tmp_path / f"a{letter}b")
    assert caught.value.code == "prefix.characters"


def test_file_that_holds_the_bytes_is_not_touched_and_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    assert write_file(path, b"one")
    before = path.stat()
    assert not write_file(path, b"one")
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    other.write_bytes(b"precious")
    path.unlink()
    path.symlink_to(other)
    assert write_file(path, b"two", 0o600)
    assert other.read_bytes() == b"precious"
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_command_that_a_hint_names_can_be_typed(tmp_path: Path) -> None:
    prefix = Prefix.at(tmp_path / "a host & more")
    with pytest.raises(UsageError) as caught:
        open_current(prefix, NOW)
    words = shlex.split(caught.value.hint)
    assert words == ["appliance", "install", "SOURCE", "--prefix", str(prefix.root)]
    with pytest.raises(NotTrustedError) as untrusted:
        choose_root(None, prefix, None)
    assert shlex.split(untrusted.value.hint.partition("then: ")[2])[-1] == str(prefix.root)
    assert Prefix(Path("/")).option == ""
