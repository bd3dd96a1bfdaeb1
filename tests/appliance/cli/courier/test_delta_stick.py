"""A stick that leaves out what its host has: by a receipt, or by a bundle; whole on that host and nowhere else."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.builder.bare_host.boot_writer import boot_files
from appliance.keys.signers.host_key import make_host_key
from bundles.bundle import Bundle, open_bundle
from bundles.delta import delta, held_by
from bundles.medium import Medium
from bundles.oci.layout import BOOT
from signing.digest import Digest
from signing.floors import Floors
from tests.appliance.sim_host import SimHost, build_bundle, new_host
from tests.attacks.harness import Answer, command
from tests.toy import NOW


@dataclass(frozen=True)
class Made:
    """A host with version 1.0.0, its receipt, and the bundle of version 1.1.0."""

    host: SimHost
    receipt: Path
    new: Path

    def wanted(self) -> set[Digest]:
        old, new = (self.open(path) for path in (self.host.source, self.new))
        return {chunk.sha256 for chunk in delta(new, held_by(old.contents)).blobs}

    def open(self, path: Path) -> Bundle:
        return open_bundle(path, self.host.trust, Floors(), NOW).value

    def write(self, stick: Path, since: Path) -> set[str]:
        """Write a delta; the names of the blobs on it."""
        words = ("stick", "write", self.new, stick, "--since", since, "--workspace", self.host.workspace.path)
        answer = command(*words)
        assert answer.code == 0, answer.talk
        return {path.name for path in (stick / "blobs/sha256").iterdir()}

    def on_host(self, *words: str | Path) -> Answer:
        return command(*words, "--prefix", self.host.prefix.root)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("delta")
    host = new_host(folder)
    host.install()
    key = make_host_key(host.prefix.trust)
    answer = command("receipt", "write", folder, "--prefix", host.prefix.root, "--yes", "--json")
    receipt = Path(json.loads(answer.out)["path"])
    words = ("receipt", "read", receipt, "--fingerprint", key.fingerprint, "--workspace", host.workspace.path)
    assert command(*words).code == 0
    new = build_bundle(host.workspace, "1.1.0", "another note")
    for path, data in boot_files(host.workspace, host.trust).items():
        Medium(new).write(path, data)
    return Made(host, receipt, new)


@pytest.mark.parametrize("by", ["receipt", "bundle"])
def test_delta_carries_what_the_host_lacks_and_no_boot(made: Made, tmp_path: Path, by: str) -> None:
    stick = tmp_path / "stick"
    carried = made.write(stick, made.receipt if by == "receipt" else made.host.source)
    assert carried == made.wanted()
    assert (made.new / BOOT).is_dir()
    assert not (stick / BOOT).exists()


def test_delta_is_whole_on_its_host_and_a_part_elsewhere(made: Made, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    made.write(stick, made.receipt)
    for words in (("verify", stick), ("stick", "check", stick)):
        assert made.on_host(*words).code == 0
    elsewhere = ("stick", "check", stick, "--workspace", made.host.workspace.path)
    assert command(*elsewhere).code == 5


def test_plan_of_a_delta_reads_what_its_host_holds(made: Made, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    made.write(stick, made.receipt)
    here = made.on_host("plan", stick)
    assert "stick.next" not in here.talk + here.out
    assert here.code == 0, here.talk
    elsewhere = command("plan", stick, "--workspace", made.host.workspace.path)
    assert (elsewhere.code, "stick.next" in elsewhere.talk) == (5, True)


def test_bundle_is_removed_and_the_receipt_still_counts(made: Made, tmp_path: Path) -> None:
    kept, wanted = made.host.source.with_name("aside"), made.wanted()
    shutil.move(made.host.source, kept)
    try:
        assert made.write(tmp_path / "stick", made.receipt) == wanted
    finally:
        shutil.move(kept, made.host.source)


def test_stick_that_has_boot_keeps_it(made: Made, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    words = ("stick", "write", made.new, stick, "--workspace", made.host.workspace.path)
    assert command(*words).code == 0
    assert command(*words, "--since", made.receipt).code == 0
    assert (stick / BOOT).is_dir()
    assert command("stick", "check", stick, "--workspace", made.host.workspace.path).code == 0


def test_lost_receipt_costs_bytes_alone(made: Made, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    answer = command("stick", "write", made.new, stick, "--workspace", made.host.workspace.path)
    assert answer.code == 0
    assert (stick / BOOT).is_dir()
    assert command("stick", "check", stick, "--workspace", made.host.workspace.path).code == 0
