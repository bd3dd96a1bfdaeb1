"""What apt and systemd do unasked, and what holds against it here: each case was found by trying.

- a power cut leaves dpkg half done, and apt then refuses everything until it is finished;
- apt reads the machine's own sources, and may remove a package to make room for another;
- `--no-download` refuses packages that are named by their path;
- a service that fails at its start is started again for ever;
- `IPAddressDeny=` does nothing, and reports nothing, on a kernel without BPF for control groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from appliance.host.install import os_packages
from appliance.host.install.os_packages import OsPackage, install_packages
from appliance.host.process.programs import ProgramResult
from appliance.resources import playbooks_path
from signing.errors import ApplyRestoredError

TOP = Path(os_packages.__file__).parents[3]
SERVICES = sorted(
    [*playbooks_path().glob("roles/*/templates/*.service.j2"), *TOP.glob("appliance/host/change/*.service")],
    key=lambda path: path.name,
)


class RecordedPrograms:
    """Starts nothing, and keeps the command lines."""

    def __init__(self, scratch: Path, codes: Sequence[int] = ()) -> None:
        self.scratch = scratch
        self.commands: list[list[str]] = []
        self.environments: list[Mapping[str, str]] = []
        self._codes = list(codes)

    def start(self, command: Sequence[str | Path], _name: str, *, env: Mapping[str, str], **_: Any) -> None:
        self.commands.append([str(word) for word in command])
        self.environments.append(env)

    def finish(self, _child: None, _name: str, _timeout_s: float) -> ProgramResult:
        return ProgramResult(self._codes.pop(0) if self._codes else 0, "")


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[OsPackage]:
    monkeypatch.setattr(os_packages, "_POLICY", tmp_path / "policy-rc.d")
    return [OsPackage(tmp_path / "a.deb", "a", "1.0", "amd64")]


def install(packages: Sequence[OsPackage], programs: RecordedPrograms) -> None:
    stand_in: Any = programs
    install_packages(packages, stand_in)


def test_what_a_power_cut_left_to_dpkg_is_finished_first(one: list[OsPackage], tmp_path: Path) -> None:
    programs = RecordedPrograms(tmp_path)
    install(one, programs)
    assert [command[:2] for command in programs.commands] == [
        ["/usr/bin/dpkg", "--configure"],
        ["/usr/bin/apt-get", "install"],
    ]
    stopped = RecordedPrograms(tmp_path, codes=[1])
    with pytest.raises(ApplyRestoredError) as caught:
        install(one, stopped)
    assert caught.value.code == "packages.refused"
    assert len(stopped.commands) == 1


def test_apt_gets_paths_and_settings_of_its_own_and_removes_nothing(one: list[OsPackage], tmp_path: Path) -> None:
    programs = RecordedPrograms(tmp_path)
    install(one, programs)
    apt = programs.commands[1]
    assert {"--no-remove", "--no-install-recommends", "--yes"} <= set(apt)
    assert "--no-download" not in apt
    assert apt[-1] == str(one[0].path)
    settings = dict(word.split("=", 1) for word in apt if "::" in word and "=" in word)
    for name in (
        "Dir::Etc::sourcelist",
        "Dir::Etc::sourceparts",
        "Dir::State::lists",
        "Dir::Cache",
        "Dir::Cache::archives",
    ):
        assert settings[name].startswith(str(tmp_path))
    assert Path(settings["Dir::Etc::sourcelist"]).read_bytes() == b""
    assert list(Path(settings["Dir::Etc::sourceparts"]).iterdir()) == []
    # A lock that somebody else holds is waited for, with an end.
    assert 0 < int(settings["DPkg::Lock::Timeout"]) < os_packages.TIMEOUT_S
    assert all(environment["DEBIAN_FRONTEND"] == "noninteractive" for environment in programs.environments)


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_service_that_fails_at_its_start_is_not_started_for_ever(path: Path) -> None:
    text = path.read_text()
    if "Restart=on-failure" in text:
        for setting in ("StartLimitIntervalSec=", "StartLimitBurst=", "RestartPreventExitStatus="):
            assert f"\n{setting}" in text
    else:
        assert "\nRestart=" not in text
    assert "Restart=always" not in text


def test_engine_has_no_network_even_where_address_rules_do_nothing() -> None:
    (engine,) = [path.read_text() for path in SERVICES if path.name.startswith("appliance-engine")]
    assert "\nPrivateNetwork=yes\n" in engine
    assert "\nRestrictAddressFamilies=AF_UNIX\n" in engine
    assert "\nListenStream=" not in engine
