"""T23: a file that nobody signed lies beside those that somebody did."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.host.install.install import install
from appliance.host.layout.prefix import Prefix
from appliance.host.preflight.inputs import Host
from appliance.host.trust.trust_store import write_root
from bundles.stick.writing.writer import write_stick
from tests.appliance.sim_card import CARD
from tests.attacks.harness import Stick, command, guard_off, refused, row
from tests.toy import NOW

ROW = row(23)
COVERED = [
    "blobs/sha256/evil",
    "blobs/sha256/" + "0" * 64,
    "blobs/sha512/evil",
    "blobs/.git/hooks/post-checkout",
    "metadata/evil.json",
    "metadata/1.root.json~",
    "metadata/.git/config",
    "targets/bundles/evil",
    "targets/bundles/toy/1.0.0/.DS_Store",
    "attestations/.git/config",
    "BOOT/json.py",
    "BOOT/.git/config",
    "BOOT/verify.pyz.bak",
]
LITTER = ["System Volume Information/IndexerVolumeGuid", "._README.txt", "autorun.inf", "evil.py"]


def plant(stick: Stick, name: str) -> Path:
    path = stick.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"planted")
    return path


@pytest.mark.parametrize("name", LITTER)
def test_unattacked_litter_where_nothing_is_covered_is_never_opened(stick: Stick, name: str) -> None:
    path = plant(stick, name)
    path.unlink()
    path.symlink_to("/dev/zero")  # a reader that opens it never returns
    assert stick.command().code == 0


@pytest.mark.parametrize("name", COVERED)
def test_attacked_in_a_covered_folder(stick: Stick, name: str) -> None:
    plant(stick, name)
    refused(ROW, stick.verify, "layout.unlisted", name)
    assert stick.command().code == 4


@pytest.mark.parametrize("name", COVERED)
def test_attacked_on_the_way_to_an_install(stick: Stick, tmp_path: Path, name: str) -> None:
    plant(stick, name)
    host = Host(Prefix.at(tmp_path / "host"), CARD, lambda: NOW, "")
    host.prefix.create()
    write_root(host.prefix, stick.root)
    before = sorted(host.prefix.root.rglob("*"))
    refused(ROW, lambda: install(stick.path, stick.root, host), "layout.unlisted", name)
    assert sorted(host.prefix.root.rglob("*")) == before


def test_attacked_with_several_files_all_are_named(stick: Stick) -> None:
    for name in COVERED[:3]:
        plant(stick, name)
    error = refused(ROW, stick.verify, "layout.unlisted", ", ".join(sorted(COVERED[:3])))
    assert error.found == "3 more"


def test_unattacked_metadata_of_an_earlier_writing_are_named_as_such_and_writing_again_removes_them(
    stick: Stick, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    write_stick(stick.layout, stick.open(), copy)
    (copy / "metadata" / "1.snapshot.json").write_bytes(b"{}")
    answer = command("verify", copy, "--trust", stick.root_file)
    assert (answer.code, "write this stick again" in answer.talk) == (4, True), answer.talk
    write_stick(stick.layout, stick.open(), copy)
    assert command("verify", copy, "--trust", stick.root_file).code == 0


def test_unguarded_the_planted_file_stays_unseen(stick: Stick) -> None:
    plant(stick, COVERED[0])
    with guard_off(ROW.guard, lambda *_: None):
        assert stick.command().code == 0
