"""While packages are installed none of their services starts, and no policy is left behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from appliance.host.install.policy_rc import TEXT, no_service_starts, remove_policy

OWN = b"#!/bin/sh\nexit 0\n"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return tmp_path / "sbin" / "policy-rc.d"


@pytest.fixture(autouse=True)
def folder(policy: Path) -> None:
    policy.parent.mkdir()


def names(policy: Path) -> list[str]:
    return sorted(path.name for path in policy.parent.iterdir())


def test_policy_forbids_while_packages_are_installed_and_is_gone_afterwards(policy: Path) -> None:
    with no_service_starts(policy) as is_sure:
        assert is_sure
        assert names(policy) == ["policy-rc.d"]
        assert subprocess.run([policy, "some.service", "start"]).returncode == 101
    assert names(policy) == []


def test_policy_is_removed_when_the_packages_cannot_be_installed(policy: Path) -> None:
    with pytest.raises(RuntimeError), no_service_starts(policy):
        raise RuntimeError
    assert names(policy) == []


def test_policy_that_a_killed_run_has_left_is_removed_by_the_next(policy: Path) -> None:
    policy.write_bytes(TEXT)
    policy.with_name(".policy-rc.d.appliance").write_bytes(b"half of")
    with no_service_starts(policy) as is_sure:
        assert is_sure
    assert names(policy) == []
    policy.write_bytes(TEXT)
    assert remove_policy(policy)
    assert not remove_policy(policy)
    assert names(policy) == []


@pytest.mark.parametrize("data", [OWN, TEXT + b"# mine now\n", b""])
def test_policy_of_the_operator_is_neither_replaced_nor_removed_and_the_caller_knows(policy: Path, data: bytes) -> None:
    policy.write_bytes(data)
    with no_service_starts(policy) as is_sure:
        assert not is_sure
        assert policy.read_bytes() == data
    assert not remove_policy(policy)
    assert (policy.read_bytes(), names(policy)) == (data, ["policy-rc.d"])


@pytest.mark.parametrize("target", ["elsewhere", "absent"])
def test_link_of_the_operator_is_left_alone_whatever_its_target(policy: Path, target: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(TEXT)
    policy.symlink_to(tmp_path / target)
    with no_service_starts(policy) as is_sure:
        assert not is_sure
    assert policy.is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == TEXT


def test_policy_that_the_operator_writes_meanwhile_stays(policy: Path) -> None:
    with no_service_starts(policy):
        policy.write_bytes(OWN)
    assert policy.read_bytes() == OWN
