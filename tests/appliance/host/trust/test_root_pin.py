"""A root is pinned only with a fingerprint that came by another way."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.host.layout.prefix import Prefix
from appliance.host.trust.root_choice import choose_root
from appliance.host.trust.root_pin import pin_root
from appliance.host.trust.trust_store import read_root
from appliance.keys.workspace import Workspace, create_development
from signing.errors import ApplianceError, NotTrustedError, UsageError
from tests.toy import NOW


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return create_development(tmp_path / "workspace", NOW)[0]


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    return Prefix.at(tmp_path / "host")


def fingerprint(workspace: Workspace) -> str:
    return next(iter(workspace.root().roles["root"].keys.values())).fingerprint


def test_root_with_the_fingerprint_from_paper_is_pinned(workspace: Workspace, prefix: Prefix) -> None:
    typed = ":".join(fingerprint(workspace)[at : at + 4].upper() for at in range(0, 64, 4))
    assert pin_root(prefix, workspace.root_file, [typed])
    assert read_root(prefix) == workspace.root_file.read_bytes()
    assert not pin_root(prefix, workspace.root_file, [fingerprint(workspace)])


def test_wrong_fingerprint_pins_nothing(workspace: Workspace, prefix: Prefix) -> None:
    with pytest.raises(NotTrustedError) as caught:
        pin_root(prefix, workspace.root_file, ["0" * 64])
    assert caught.value.code == "trust.wrong-fingerprint"
    assert not prefix.root.exists()


def test_fingerprint_of_a_key_that_is_no_root_key_pins_nothing(workspace: Workspace, prefix: Prefix) -> None:
    with pytest.raises(NotTrustedError):
        pin_root(prefix, workspace.root_file, [workspace.key("targets").public.fingerprint])


def test_pinned_root_is_not_replaced_by_another(workspace: Workspace, prefix: Prefix, tmp_path: Path) -> None:
    pin_root(prefix, workspace.root_file, [fingerprint(workspace)])
    other, _ = create_development(tmp_path / "other", NOW)
    with pytest.raises(ApplianceError) as caught:
        pin_root(prefix, other.root_file, [fingerprint(other)])
    assert caught.value.code == "trust.already-pinned"
    assert read_root(prefix) == workspace.root_file.read_bytes()


def test_choice_is_the_named_file_then_the_host_then_the_workspace(
    workspace: Workspace, prefix: Prefix, tmp_path: Path
) -> None:
    other, _ = create_development(tmp_path / "other", NOW)
    pin_root(prefix, workspace.root_file, [fingerprint(workspace)])
    assert choose_root(other.root_file, prefix, None) == other.root_file.read_bytes()
    assert choose_root(None, prefix, other.path) == workspace.root_file.read_bytes()
    assert choose_root(None, None, other.path) == other.root_file.read_bytes()


def test_without_a_pinned_root_nothing_is_trusted_and_the_hint_is_to_pin(prefix: Prefix, tmp_path: Path) -> None:
    with pytest.raises(NotTrustedError) as caught:
        choose_root(None, prefix, None)
    assert f"appliance trust pin ROOT --fingerprint SHA256 --prefix {prefix.root}" in caught.value.hint
    with pytest.raises(UsageError):
        choose_root(None, prefix, tmp_path)
    with pytest.raises(UsageError):
        choose_root(tmp_path / "absent.json", None, None)
