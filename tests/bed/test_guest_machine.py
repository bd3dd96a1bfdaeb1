"""What a frozen guest may be resumed by, and what every guest is made of. These need no virtual machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.bed import guest_frozen, guest_image, guest_machine, usb
from tests.bed.guest_image import Image
from tests.bed.guest_machine import Machine, Wiring
from tests.bed.host import BedError

MACHINE = Machine("tcg", "max")
IMAGE = Image(Path("/nowhere/guest-0123456789abcdef"))


@pytest.fixture(autouse=True)
def _qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_machine, "qemu_version", lambda: "QEMU emulator version 7.2.22")


def _key(machine: Machine = MACHINE, image: Image = IMAGE) -> str:
    return guest_frozen.place(image, machine).folder.name


@pytest.mark.parametrize(
    "other",
    [
        Machine("kvm", "max"),
        replace(MACHINE, cpu="Nehalem"),
        replace(MACHINE, memory_mib=1024),
        replace(MACHINE, cpus=1),
    ],
    ids=str,
)
def test_another_machine_shape_is_another_frozen_guest(other: Machine) -> None:
    assert _key(other) != _key()


def test_another_image_or_qemu_is_another_frozen_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _key(image=Image(Path("/nowhere/guest-fedcba9876543210"))) != _key()
    before = _key()
    monkeypatch.setattr(guest_machine, "qemu_version", lambda: "QEMU emulator version 7.2.23")
    assert _key() != before


def test_another_agent_is_another_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = guest_image.place().name
    for name in ("agent.py", "bed-agent.service"):
        (tmp_path / name).write_text((guest_image.FILES / name).read_text())
    monkeypatch.setattr(guest_image, "FILES", tmp_path)
    assert guest_image.place().name == before
    (tmp_path / "agent.py").write_text("pass\n")
    assert guest_image.place().name != before


def test_with_kvm_another_processor_is_another_frozen_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    host, emulated = Machine("kvm", "host"), _key()
    before = _key(host)
    monkeypatch.setattr(guest_machine, "_cpu_flags", lambda: "vmx another")
    assert _key(host) != before
    assert _key() == emulated


def test_every_guest_is_started_without_a_network_card() -> None:
    argv = MACHINE.argv(Wiring(Path("disk"), Path("kernel"), Path("initrd"), Path("console"), 3, 4))
    assert argv[argv.index("-nic") + 1] == "none"
    assert not [word for word in argv if word.startswith(("virtio-net", "e1000", "user,", "tap,"))]


def test_a_nested_machine_without_vmx_has_no_kvm_even_where_the_device_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: True)
    monkeypatch.setattr(guest_machine, "_cpu_flags", lambda: "fpu sse4_2 avx2")
    assert not guest_machine.has_kvm()
    monkeypatch.setattr(guest_machine, "_cpu_flags", lambda: "fpu vmx")
    assert guest_machine.has_kvm()


def test_contents_that_do_not_fit_on_a_stick_are_an_error_of_the_bed(tmp_path: Path) -> None:
    if reason := usb.missing():
        pytest.skip(reason)
    (tmp_path / "contents").mkdir()
    (tmp_path / "contents" / "big").write_bytes(bytes(usb.SMALLEST_BYTES))
    with pytest.raises(BedError, match="mcopy"):
        usb.make_fat32(tmp_path / "stick", usb.SMALLEST_BYTES, tmp_path / "contents")


def test_what_was_put_on_a_fat32_stick_comes_off_again(tmp_path: Path) -> None:
    if reason := usb.missing():
        pytest.skip(reason)
    (tmp_path / "contents" / "blobs").mkdir(parents=True)
    (tmp_path / "contents" / "blobs" / ("f" * 64)).write_bytes(b"chunk" * 1000)
    stick = usb.make_stick("stick-1", tmp_path / "stick", tmp_path / "contents")
    (tmp_path / "out").mkdir()
    usb.copy_out(stick.image, tmp_path / "out")
    assert (tmp_path / "out" / "blobs" / ("f" * 64)).read_bytes() == b"chunk" * 1000
