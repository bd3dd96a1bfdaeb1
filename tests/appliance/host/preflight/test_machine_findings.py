"""A port that is taken, a package manager at work: who it is, whether it prevents the install, and the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.host.layout.prefix import Prefix
from appliance.host.preflight.finding import HostFinding, Level
from appliance.host.preflight.machine_findings import package_findings, port_finding
from appliance.host.preflight.older import version_order
from appliance.host.preflight.surroundings import Listener, Process, Surroundings
from appliance.host.preflight.system_findings import name_finding
from appliance.host.site.config import SiteConfig

SITE = SiteConfig()
SYSTEM = Prefix(Path("/"))
NGINX = Process(812, "nginx", "0::/system.slice/nginx.service")
GATEWAY = Process(9, "python3", "0::/system.slice/appliance-gateway.service")
SYSTEMD = Process(1, "systemd", "0::/init.scope")


def on_port(address: str, process: Process, port: int = 8443) -> Surroundings:
    return Surroundings(listeners=(Listener(address, port, process),))


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::"])
def test_port_that_another_program_holds_prevents_services_and_names_it(address: str) -> None:
    found = port_finding(SYSTEM, SITE, on_port(address, NGINX))
    assert (found.level, found.subject) == (Level.PROBLEM, "port 8443")
    assert found.measured == "taken by process 812 (nginx)"
    assert "/etc/appliance/site.yaml" in found.remedy


def test_port_below_a_prefix_is_a_note_since_serve_takes_another(tmp_path: Path) -> None:
    found = port_finding(Prefix(tmp_path), SITE, on_port("127.0.0.1", NGINX))
    assert (found.level, "--port" in found.remedy) == (Level.WARNING, True)


@pytest.mark.parametrize(
    ("around", "measured"),
    [
        (on_port("127.0.0.1", GATEWAY), "held by the gateway"),
        (on_port("127.0.0.2", NGINX), "free"),
        (on_port("127.0.0.1", NGINX, 8444), "free"),
        (Surroundings(), "free"),
    ],
)
def test_port_of_the_gateway_and_other_ports_are_right(around: Surroundings, measured: str) -> None:
    found = port_finding(SYSTEM, SITE, around)
    assert (found.level, found.measured) == (Level.OK, measured)


def test_socket_unit_counts_as_ours_where_the_serving_release_has_this_port(tmp_path: Path) -> None:
    prefix, around = Prefix(tmp_path), on_port("127.0.0.1", SYSTEMD)
    assert port_finding(prefix, SITE, around).level is Level.WARNING
    config = prefix.current / "config/gateway.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"bind": "127.0.0.1", "port": 9000}))
    assert port_finding(prefix, SITE, around).level is Level.WARNING
    config.write_text(json.dumps({"bind": "127.0.0.1", "port": 8443}))
    assert port_finding(prefix, SITE, around).level is Level.OK


def levels(found: list[HostFinding]) -> list[Level]:
    return [one.level for one in found]


def test_lock_of_the_package_manager_prevents_only_what_needs_it() -> None:
    around = Surroundings(package_lock=Process(7, "apt-get"))
    needed, bare, unneeded = (package_findings(around, wanted) for wanted in (["a.deb"], None, []))
    assert levels(needed) == [Level.PROBLEM, Level.OK]
    assert needed[0].measured == "its lock is held by process 7 (apt-get)"
    assert needed[0].remedy == "wait until process 7 (apt-get) has ended, then run it again"
    assert levels(bare) == [Level.WARNING, Level.OK]
    assert unneeded == []


def test_interrupted_dpkg_is_finished_by_the_install_unless_files_are_half_unpacked() -> None:
    unfinished = package_findings(Surroundings(unfinished=("a", "b")), ["c.deb"])[1]
    assert (unfinished.level, unfinished.measured) == (Level.WARNING, "not configured: a, b")
    broken = package_findings(Surroundings(unfinished=("a",), broken=("torn",)), ["c.deb"])[1]
    assert (broken.level, broken.measured) == (Level.PROBLEM, "half unpacked: torn")
    assert "apt-get --fix-broken install" in broken.remedy


@pytest.mark.parametrize(("length", "level"), [(0, Level.PROBLEM), (1, Level.OK), (63, Level.OK), (64, Level.PROBLEM)])
def test_host_name_fits_into_a_label(length: int, level: Level) -> None:
    found = name_finding("x" * length)
    assert found.level is level
    assert (found.remedy == "hostnamectl set-hostname NAME") == (level is Level.PROBLEM)


def test_versions_are_ordered_by_numbers_and_a_suffix_comes_before() -> None:
    versions = ["0.9", "0.9.0", "1.0.0-alpha", "1.0.0-rc1", "1.0.0-rc2", "1.0.0", "1.0.2", "1.0.10", "1.10.0", "10.0"]
    assert sorted(set(versions), key=version_order) == versions
