"""T118: a stick that is refused alone, and is taken when it lies beside right ones of the same bundle."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from appliance.host.install.bundle_admission import admit
from appliance.host.install.install import install
from appliance.host.preflight.inputs import Host, SourceMedia
from bundles.oci.layout import blob_path
from signing.errors import ApplianceError
from tests.attacks.harness import Stick, command, guard_off, row
from tests.attacks.media_faults import FAULTS, Fault
from tests.attacks.test_t21_medium import fifo, link, link_to_a_device

ROW = row(118)
FIRST = tuple(FAULTS.values())[::5]


@pytest.fixture
def other(stick: Stick, tmp_path: Path) -> Stick:
    """A second stick with the same bundle, which somebody will change."""
    path = tmp_path / "other"
    shutil.copytree(stick.path, path)
    return Stick(path, stick.repository, stick.root_file)


def verdict(*sticks: Stick) -> tuple[int, str]:
    """The exit code of `verify` for several sticks, and what it said."""
    answer = command("verify", *(one.path for one in sticks), "--trust", sticks[0].root_file)
    return answer.code, answer.talk


def test_unattacked_two_sticks_of_one_bundle_pass_every_command(stick: Stick, other: Stick, host: Host) -> None:
    assert verdict(stick, other)[0] == 0
    assert admit(SourceMedia((other.path, stick.path)), stick.root, host).found.value.manifest == stick.manifest


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_attacked_the_verdict_of_a_stick_alone_holds_beside_a_right_one(
    stick: Stick, other: Stick, host: Host, fault: Fault
) -> None:
    before = sorted(host.prefix.root.rglob("*"))
    fault.act(other)
    assert fault.exit in ROW.exit
    # In the other order it is looked at first, which is how a stick alone is looked at: some of each kind are enough.
    for pair in ((stick, other), (other, stick)) if fault in FIRST else ((stick, other),):
        code, said = verdict(*pair)
        assert (code, f"({fault.code})" in said) == (fault.exit, True), said
        with pytest.raises(ApplianceError) as caught:
            install(SourceMedia(tuple(one.path for one in pair)), stick.root, host)
        assert (caught.value.code, caught.value.exit_code) == (fault.code, fault.exit), str(caught.value)
    assert sorted(host.prefix.root.rglob("*")) == before


@pytest.mark.parametrize("attack", [link, link_to_a_device, fifo])
def test_attacked_by_a_blob_that_is_no_file_where_another_stick_has_the_right_one(
    stick: Stick, other: Stick, host: Host, attack: object
) -> None:
    digest = stick.open().value.contents.files[0].chunks[0].sha256
    assert callable(attack)
    attack(other.blob(digest))
    for pair in ((stick, other), (other, stick)):
        assert verdict(*pair)[0] == 4
        with pytest.raises(ApplianceError) as caught:
            install(SourceMedia(tuple(one.path for one in pair)), stick.root, host)
        assert (caught.value.code, caught.value.exit_code) == ("medium.hostile", 4)


def test_attacked_by_a_giant_where_another_stick_has_the_right_blob(stick: Stick, other: Stick, host: Host) -> None:
    contents = stick.open().value.contents
    os.truncate(other.blob(contents.of_kind("wheel")[0].chunks[0].sha256), 1 << 40)
    damaged = other.blob(contents.of_kind("playbook")[0].chunks[0].sha256)
    damaged.write_bytes(b"E" * damaged.stat().st_size)
    assert verdict(stick, other)[0] == verdict(other, stick)[0] == 4
    for pair in ((stick, other), (other, stick), (other,)):
        with pytest.raises(ApplianceError) as caught:
            install(SourceMedia(tuple(one.path for one in pair)), stick.root, host)
        assert (caught.value.code, caught.value.exit_code) == ("blob.too-long", 4)


def test_attacked_by_other_bytes_where_another_stick_has_the_right_blob(stick: Stick, other: Stick) -> None:
    digest = stick.open().value.contents.of_kind("playbook")[0].chunks[0].sha256
    path = other.path / blob_path(digest)
    path.write_bytes(b"E" * path.stat().st_size)
    assert verdict(stick, other)[0] == verdict(other, stick)[0] == 3


def test_unguarded_install_takes_the_stick_beside_a_right_one(stick: Stick, other: Stick, host: Host) -> None:
    FAULTS["another verifier in BOOT"].act(other)
    with guard_off(ROW.guard, lambda *_: None):
        found = admit(SourceMedia((stick.path, other.path)), stick.root, host).found
    assert found.value.manifest == stick.manifest
