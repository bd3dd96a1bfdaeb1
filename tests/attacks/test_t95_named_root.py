"""T95: an install pins a root that nobody has compared with paper."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from appliance.host.install.bundle_admission import admit
from appliance.host.layout.prefix import Prefix
from appliance.host.preflight.inputs import Host
from appliance.host.trust.root_pin import pin_root
from appliance.host.trust.trust_store import read_root
from tests.appliance.sim_card import CARD
from tests.attacks.harness import Stick, command, guard_off, refused, row
from tests.toy import NOW, build_toy

ROW = row(95)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(Prefix.at(tmp_path / "host"), CARD, lambda: NOW, "")


@pytest.fixture
def workspace(stick: Stick, tmp_path: Path) -> Path:
    """A folder with the root for real use where a workspace keeps it."""
    (tmp_path / "workspace" / "trust").mkdir(parents=True)
    shutil.copy(stick.root_file, tmp_path / "workspace" / "trust" / "root.json")
    return tmp_path / "workspace"


def test_unattacked_root_that_was_pinned_by_its_fingerprints_admits_the_bundle(stick: Stick, host: Host) -> None:
    pin_root(host.prefix, stick.root_file, [one.public.fingerprint for one in stick.repository.people.root])
    assert admit(stick.path, stick.root, host).found.value.contents.name == "toy"


def test_unattacked_development_root_is_pinned_by_the_first_install_and_announced_before_it(
    tmp_path: Path, host: Host
) -> None:
    made, bundle = build_toy(tmp_path / "development")
    assert admit(bundle, made.root_file.read_bytes(), host).found.evidence.is_development
    shown = command("install", bundle, "--trust", made.root_file, "--prefix", host.prefix.root)
    [key] = made.root().roles["root"].keys.values()
    first, second, third, *_ = shown.talk.splitlines()
    assert first.startswith("DEVELOPMENT TRUST ROOT: one key for trials")
    assert second.startswith("this install pins that root on this host; nobody has compared")
    assert third.strip() == key.fingerprint


def test_attacked_by_a_root_file_that_the_operator_was_given(stick: Stick, host: Host) -> None:
    error = refused(ROW, lambda: admit(stick.path, stick.root, host), "trust.not-pinned", str(host.prefix.root))
    assert "appliance trust pin ROOT --fingerprint SHA256 --prefix" in error.hint
    answer = command("install", stick.path, "--trust", stick.root_file, "--prefix", host.prefix.root)
    assert (answer.code, "appliance trust pin ROOT --fingerprint" in answer.talk) == (4, True)
    assert not host.prefix.root.exists()


def test_attacked_by_a_workspace_that_a_variable_names(
    stick: Stick, host: Host, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPLIANCE_WORKSPACE", str(workspace))
    assert command("verify", stick.path, "--prefix", host.prefix.root).code == 0, "which pins nothing"
    answer = command("install", stick.path, "--prefix", host.prefix.root)
    assert (answer.code, "trust.not-pinned" in answer.talk) == (4, True)
    assert read_root(host.prefix) is None


def test_attacked_on_a_host_that_has_pinned_another_root(stick: Stick, host: Host, tmp_path: Path) -> None:
    """The pinned root decides; a named one must cover the bundle, too, and replaces nothing."""
    made, bundle = build_toy(tmp_path / "development")
    pin_root(host.prefix, stick.root_file, [one.public.fingerprint for one in stick.repository.people.root])
    assert command("install", bundle, "--trust", made.root_file, "--prefix", host.prefix.root).code == 4
    assert read_root(host.prefix) == stick.root


def test_unguarded_any_named_root_admits_its_bundles(stick: Stick, host: Host) -> None:
    with guard_off(ROW.guard, lambda *_: None):
        assert admit(stick.path, stick.root, host).found.value.contents.name == "toy"
