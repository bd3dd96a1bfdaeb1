"""Services start what was verified, report what their sandbox really is, and end with the right exit code."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.host.activation import service_check
from appliance.host.layout.places import check_places, is_rendered, rendered_names
from appliance.host.layout.prefix import Prefix
from appliance.host.layout.unit_files import (
    GATEWAY_UNIT,
    engine_unit,
    install_unit,
    is_installed,
    trial_mark,
    unit_names,
)
from appliance.host.preflight.host_check import check_host
from appliance.host.preflight.inputs import Host
from appliance.host.process import systemctl
from appliance.host.process.systemctl import UnitState
from appliance.host.release.release import Release
from appliance.host.site.api_keys import AccessStore
from appliance.serve.unit_programs import engine as program
from appliance.serve.unit_programs import startup
from bundles.bundle import Bundle
from signing.digest import Digest
from signing.errors import ApplianceError, DamagedError, DriftError, HostUnfitError, NotTrustedError
from signing.verified import Verified
from tests.appliance.sim_card import CARD
from tests.appliance.sim_host import new_host
from tests.toy import NOW

MANIFEST = Digest("0123456789abcdef" * 4)
SYSTEM = Prefix(Path("/"))


@pytest.fixture
def bundle(tmp_path: Path) -> Verified[Bundle]:
    return new_host(tmp_path).verify()


def net_dev(tmp_path: Path, *names: str) -> Path:
    file = tmp_path / "dev"
    file.write_text("Inter-| Receive\n face |bytes\n" + "".join(f"{name:>6}: 0 0\n" for name in names))
    return file


def closed(monkeypatch: pytest.MonkeyPatch, *families: int) -> None:
    """Refuse sockets of some families, as a unit's filter does."""
    real = socket.socket

    def refuse(family: int = -1, *arguments: int) -> socket.socket:
        if family in families:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, *arguments)

    monkeypatch.setattr(socket, "socket", refuse)


def test_units_name_the_release_and_the_model() -> None:
    assert engine_unit(MANIFEST, "smollm2-135m") == "appliance-engine@0123456789ab-smollm2-135m.service"
    assert trial_mark(SYSTEM, Path("/opt/appliance/releases/1.0.0-0123456789ab")).name == "trial-0123456789ab"


def test_units_are_rendered_on_a_whole_machine_only(tmp_path: Path, bundle: Verified[Bundle]) -> None:
    contents = bundle.value.contents
    units = {f"config/units/{name}" for name in unit_names(contents, MANIFEST)}
    assert units < set(rendered_names(SYSTEM, contents, MANIFEST))
    assert not units & set(rendered_names(Prefix(tmp_path), contents, MANIFEST))
    assert all(map(is_rendered, rendered_names(SYSTEM, contents, MANIFEST)))


def test_bundle_that_brings_a_unit_of_its_own_is_refused(bundle: Verified[Bundle]) -> None:
    contents = bundle.value.contents
    file = replace(contents.files[0], path=f"config/units/{GATEWAY_UNIT}", kind="config")
    with pytest.raises(NotTrustedError) as raised:
        check_places(replace(contents, files=(file,)))
    assert raised.value.code == "contents.place"


def test_unit_is_installed_once_and_a_changed_one_is_noticed(tmp_path: Path) -> None:
    prefix, release = Prefix(tmp_path / "root"), tmp_path / "release"
    prefix.units.mkdir(parents=True)
    (release / "config/units").mkdir(parents=True)
    (release / "config/units" / GATEWAY_UNIT).write_text("[Service]\nPrivateNetwork=yes\n")
    assert not is_installed(prefix, release, GATEWAY_UNIT)
    assert install_unit(prefix, release, GATEWAY_UNIT) is True
    assert install_unit(prefix, release, GATEWAY_UNIT) is False
    assert is_installed(prefix, release, GATEWAY_UNIT)
    (prefix.units / GATEWAY_UNIT).write_text("[Service]\n")
    assert not is_installed(prefix, release, GATEWAY_UNIT)


def test_isolation_is_reported_only_where_no_socket_reaches_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lonely, wired = net_dev(tmp_path, "lo"), tmp_path / "wired"
    net_dev(tmp_path, "lo", "eth0").rename(wired)
    lonely = net_dev(tmp_path, "lo")
    assert program.measure_isolation(lonely) == "none"
    closed(monkeypatch, socket.AF_INET)
    assert program.measure_isolation(lonely) == "none"
    closed(monkeypatch, socket.AF_INET, socket.AF_INET6)
    assert program.measure_isolation(lonely) == "netns"
    assert program.measure_isolation(wired) == "none"


def test_unit_ends_with_the_code_that_systemd_does_not_try_again(capfd: pytest.CaptureFixture[str]) -> None:
    def damaged() -> None:
        raise DamagedError("contents.file-changed", "models/a.gguf", expected="x", found="y", hint="install it again")

    def unreadable() -> None:
        raise OSError(5, "Input/output error", "/opt/appliance/x")

    assert startup.run(damaged) == 3
    assert "error: contents.file-changed: models/a.gguf" in capfd.readouterr().err
    assert startup.run(unreadable) == 3
    assert startup.run(lambda: None) == 0


def test_systemd_is_notified_when_the_unit_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    startup.notify_ready()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        startup.notify_ready()
        assert receiver.recv(64) == b"READY=1"


def test_gateway_reads_keys_and_can_grant_none(tmp_path: Path) -> None:
    path = tmp_path / "access.db"
    key = AccessStore(path).grant("ann", NOW)
    reader = AccessStore(path, is_read_only=True)
    assert reader.check(key, NOW) is not None
    with pytest.raises(ApplianceError, match="readonly"):
        reader.grant("eve", NOW)
    AccessStore(path).revoke("ann", NOW)
    assert reader.check(key, NOW) is None


def test_whole_machine_without_root_or_systemd_is_refused_with_both_reasons(bundle: Verified[Bundle]) -> None:
    card = replace(CARD, system=replace(CARD.system, systemd=""))
    contents = bundle.value.contents
    release = SYSTEM.release_path(contents.version, bundle.value.manifest)
    with pytest.raises(HostUnfitError) as raised:
        check_host(contents, (), Host(SYSTEM, card, lambda: NOW, ""), release, "2026-01-01T00:00:00Z")
    subjects = {error.subject for error in (raised.value, *raised.value.others)}
    assert {"user", "services"} <= subjects


def state(name: str, active: str = "active", enabled: str = "enabled", drop_ins: tuple[str, ...] = ()) -> UnitState:
    return UnitState(name, active, enabled, 0, drop_ins)


@pytest.mark.parametrize(
    ("unit_state", "code"),
    [
        (state(GATEWAY_UNIT), None),
        (state(GATEWAY_UNIT, active="failed"), "service.not-running"),
        (state(GATEWAY_UNIT, enabled="disabled"), "service.not-enabled"),
        (state(GATEWAY_UNIT, drop_ins=("/etc/systemd/system/x.d/own.conf",)), "service.overridden"),
    ],
)
def test_service_that_is_not_as_it_was_installed_is_drift(
    tmp_path: Path,
    bundle: Verified[Bundle],
    monkeypatch: pytest.MonkeyPatch,
    unit_state: UnitState,
    code: str | None,
) -> None:
    monkeypatch.setattr(service_check, "is_installed", lambda *_: True)
    monkeypatch.setattr(systemctl, "last_log_lines", lambda _unit: "nothing")
    monkeypatch.setattr(systemctl, "state", state)  # of those that only a timer starts
    release = Release(tmp_path, SYSTEM, bundle, None)  # type: ignore[arg-type]
    problems = service_check.service_problems(release, (unit_state,))
    assert [problem.code for problem in problems] == ([code] if code else [])
    assert all(isinstance(problem, DriftError) for problem in problems)


def test_systemctl_that_fails_is_reported_with_its_own_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "systemctl"
    fake.write_text("#!/bin/sh\necho 'Unit x.service not found.' >&2\nexit 5\n")
    fake.chmod(0o755)
    monkeypatch.setattr(systemctl, "_ENVIRONMENT", {"PATH": f"{tmp_path}:/usr/bin:/bin"})
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ApplianceError) as raised:
        systemctl.start(["x.service"])
    assert (raised.value.code, raised.value.found) == ("systemd.failed", "Unit x.service not found.")
