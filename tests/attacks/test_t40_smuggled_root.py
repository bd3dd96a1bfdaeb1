"""T40: the bundle brings the root that it wants to be checked against."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from appliance.host.floorstore import read_root
from appliance.host.pinned import choose_root
from appliance.host.prefix import Prefix
from appliance.host.trust_pin import pin_root
from tests.attacks.harness import Stick, command, guard_off, refused, row
from tests.sim.tuf import STRANGERS, TufRepository

ROW = row(40)


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    return Prefix.at(tmp_path / "host")


def fingerprints(repository: TufRepository) -> list[str]:
    return [key.public.fingerprint for key in repository.people.root]


def replace_everything(stick: Stick) -> Path:
    """A foreign bundle that is whole in itself, its root included; also where a workspace keeps its root."""
    theirs = TufRepository(STRANGERS)
    theirs.publish(stick.repository.signed(stick.repository.targets_name)["targets"])
    theirs.write_to(stick.path / "metadata")
    (stick.path / "trust").mkdir()
    replace(stick, repository=theirs).put_boot()
    for place in ("trust/root.json", "root.json"):
        (stick.path / place).write_bytes(theirs.pinned)
    return stick.path / "root.json"


def verify_on(prefix: Prefix, stick: Stick) -> int:
    return command("verify", stick.path, "--prefix", prefix.root).code


def test_unattacked_host_that_has_pinned_the_root_verifies(stick: Stick, prefix: Prefix) -> None:
    pin_root(prefix, stick.root_file, fingerprints(stick.repository))
    assert verify_on(prefix, stick) == 0


def test_attacked_host_without_a_root_takes_none_from_the_stick(stick: Stick, prefix: Prefix) -> None:
    replace_everything(stick)
    refused(ROW, lambda: choose_root(None, prefix, None), "trust.none-pinned", str(prefix.root))
    assert verify_on(prefix, stick) == 4


def test_attacked_operator_who_stands_in_the_sticks_folder(
    stick: Stick, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stick holds `trust/root.json`, as a workspace does; the folder that one stands in is nobody's choice."""
    replace_everything(stick)
    monkeypatch.chdir(stick.path)
    for arguments in (("verify", "."), ("install", ".")):
        assert command(*arguments, "--prefix", prefix.root).code == 4


def test_attacked_host_with_a_root_keeps_it(stick: Stick, prefix: Prefix) -> None:
    pin_root(prefix, stick.root_file, fingerprints(stick.repository))
    replace_everything(stick)
    refused(ROW, stick.verify, "root.differs", "1.root.json")
    assert verify_on(prefix, stick) == 4
    assert command("install", stick.path, "--prefix", prefix.root).code == 4
    assert read_root(prefix) == stick.root


def test_attacked_by_pinning_what_the_stick_brings(stick: Stick, prefix: Prefix) -> None:
    """The fingerprints are the ones on paper: the operator types them, the stick's root does not have them."""
    smuggled = replace_everything(stick)
    on_paper = fingerprints(stick.repository)
    refused(ROW, lambda: pin_root(prefix, smuggled, on_paper), "trust.wrong-fingerprint", str(smuggled))
    assert read_root(prefix) is None


def test_attacked_by_a_second_pinning(stick: Stick, prefix: Prefix) -> None:
    pin_root(prefix, stick.root_file, fingerprints(stick.repository))
    smuggled = replace_everything(stick)
    theirs = [part for one in STRANGERS.root for part in ("--fingerprint", one.public.fingerprint)]
    answer = command("trust", "pin", smuggled, *theirs, "--prefix", prefix.root)
    assert (answer.code, "already pinned" in answer.talk) == (1, True)
    assert read_root(prefix) == stick.root


def test_unguarded_the_sticks_own_root_proves_the_stick(stick: Stick, prefix: Prefix) -> None:
    smuggled = replace_everything(stick)
    with guard_off(ROW.guard, lambda *_: smuggled.read_bytes()):
        assert verify_on(prefix, stick) == 0
