"""T88: a medium that one command refuses and another one takes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.host.install.bundle_admission import admit
from appliance.host.install.install import install
from appliance.host.preflight.inputs import Host
from bundles.bare_host import command_line as verifier
from bundles.stick.writing.writer import write_stick
from signing.errors import ApplianceError
from tests.attacks.harness import Stick, command, guard_off, row
from tests.attacks.media_faults import FAULTS, NAMES, Fault

ROW = row(88)


def refused_alike(act: Callable[[], object], fault: Fault) -> None:
    with pytest.raises(ApplianceError) as caught:
        act()
    assert (caught.value.code, caught.value.exit_code) == (fault.code, fault.exit), str(caught.value)
    assert fault.exit in ROW.exit


def test_unattacked_medium_passes_every_command(stick: Stick, host: Host, tmp_path: Path) -> None:
    stick.verify()
    assert admit(stick.path, stick.root, host).found.value.manifest == stick.manifest
    write_stick(stick.layout, stick.open(), tmp_path / "copy")
    assert verifier.main([str(stick.path), "--trust", str(stick.root_file)]) == 0


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_attacked_whatever_verify_refuses_every_other_command_refuses_alike_and_writes_nothing(
    stick: Stick, host: Host, tmp_path: Path, fault: Fault
) -> None:
    before = sorted(host.prefix.root.rglob("*"))
    fault.act(stick)
    refused_alike(stick.verify, fault)
    refused_alike(lambda: install(stick.path, stick.root, host), fault)
    refused_alike(lambda: write_stick(stick.layout, stick.open(), tmp_path / "copy"), fault)
    assert stick.command().code == fault.exit
    # The registry is asked after the medium was checked: there is none at this address.
    sent = command("bundle", "export", stick.path, "127.0.0.1:1/models/toy", "--trust", stick.root_file)
    assert (sent.code, f"({fault.code})" in sent.talk) == (fault.exit, True), sent.talk
    assert verifier.main([str(stick.path), "--trust", str(stick.root_file)]) == fault.exit
    assert sorted(host.prefix.root.rglob("*")) == before
    assert not (tmp_path / "copy").exists()


def test_unattacked_runtime_that_is_no_wheel_is_damaged_for_plan(stick: Stick) -> None:
    """People have signed it: the toy's runtime is a line of text."""
    answer = command("plan", stick.path, "--trust", stick.root_file)
    assert (answer.code, "contents.file-changed" in answer.talk) == (3, True), answer.talk


@pytest.mark.parametrize(
    "name", ["what a Mac left", "an empty folder in BOOT", "a manifest that is not on the medium's index"]
)
def test_attacked_what_lies_on_a_stick_is_found_when_it_is_read_back(stick: Stick, tmp_path: Path, name: str) -> None:
    found, copy = stick.open(), tmp_path / "copy"
    write_stick(stick.layout, found, copy)
    NAMES[name].act(Stick(copy, stick.repository, stick.root_file))
    refused_alike(lambda: write_stick(stick.layout, found, copy), NAMES[name])


def test_unattacked_a_stick_with_older_metadata_gets_the_newer_and_nothing_of_the_older_stays(
    stick: Stick, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    write_stick(stick.layout, stick.open(), copy)
    stick.publish()
    write_stick(stick.layout, stick.open(), copy)
    names = sorted(path.name for path in (stick.path / "metadata").iterdir())
    assert sorted(path.name for path in (copy / "metadata").iterdir()) == names


def test_attacked_by_a_link_as_a_name_of_the_format_a_stick_is_not_written(stick: Stick, tmp_path: Path) -> None:
    copy, outside = tmp_path / "copy", tmp_path / "outside"
    for name in ("STICK.json", "README.txt", "index.json", "oci-layout"):
        copy.mkdir()
        (copy / name).symlink_to(outside)
        with pytest.raises(ApplianceError) as caught:
            write_stick(stick.layout, stick.open(), copy)
        assert (caught.value.code, caught.value.subject) == ("medium.hostile", name)
        assert (outside.exists(), os.listdir(copy)) == (False, [name])
        (copy / name).unlink()
        copy.rmdir()


def test_unguarded_install_takes_what_verify_would_refuse(stick: Stick, host: Host) -> None:
    FAULTS["another verifier in BOOT"].act(stick)
    with guard_off(ROW.guard, lambda *_: None):
        assert admit(stick.path, stick.root, host).found.value.manifest == stick.manifest
