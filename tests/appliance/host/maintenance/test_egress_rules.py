"""The rules and the unit of the counter on real hosts: what is counted, and what a restart or other rules do to it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import Environment, StrictUndefined

from appliance.resources import playbooks_path
from tests.bed.fixtures import tree_folder
from tests.bed.nspawn import NspawnHost
from tests.bed.trees import TREES

pytestmark = pytest.mark.bed

UNIT = "appliance-egress.service"
USERS = ["appliance-engine", "appliance-gateway"]
SEND = (
    "import socket,sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (sys.argv[1], int(sys.argv[2])))"
)


def render(mode: str, reach: str = "host") -> tuple[str, str]:
    """The rules and the unit, as Ansible renders them."""
    environment = Environment(trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined)
    environment.filters["hash"] = lambda text, _name: hashlib.sha256(text.encode()).hexdigest()
    folder = playbooks_path() / "roles/egress/templates"
    values: dict[str, object] = {"egress_mode": mode, "egress_users": USERS, "egress_reach": reach, "egress_port": 8443}
    rules = environment.from_string((folder / "egress.nft.j2").read_text()).render(values)
    values["egress_rules"] = rules
    return rules, environment.from_string((folder / "appliance-egress.service.j2").read_text()).render(values)


def put(host: NspawnHost, folder: Path, mode: str, reach: str = "host") -> None:
    """Put both files where an install puts them, and start the unit."""
    for text, name in zip(
        render(mode, reach), ("/opt/appliance/current/config/egress.nft", f"/etc/systemd/system/{UNIT}"), strict=True
    ):
        file = folder / Path(name).name
        file.write_text(text)
        host.put(file, name)
    host.run(["systemctl", "daemon-reload"])
    host.run(["systemctl", "restart", UNIT])


@pytest.fixture(scope="module", params=["debian-12", "debian-13"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NspawnHost]:
    with NspawnHost(tree_folder(TREES[request.param])) as made:
        for user in USERS:
            made.run(["useradd", "--system", user])
        put(made, tmp_path_factory.mktemp("egress"), "count")
        made.run(["systemctl", "enable", UNIT])
        yield made


def counted(host: NspawnHost) -> dict[str, int]:
    shown = host.run(["nft", "--json", "list", "counters", "table", "inet", "appliance_egress"]).out
    counters = [entry["counter"] for entry in json.loads(shown)["nftables"] if "counter" in entry]
    return {counter["name"]: counter["packets"] for counter in counters}


def send(host: NspawnHost, user: str, address: str, port: int) -> dict[str, int]:
    """Send one datagram as a user; how much each counter has risen."""
    before = counted(host)
    host.run(["setpriv", f"--reuid={user}", "--clear-groups", "python3", "-c", SEND, address, str(port)], check=False)
    return {name: value - before[name] for name, value in counted(host).items()}


@pytest.mark.parametrize(
    ("user", "address", "port", "services", "others"),
    [
        ("appliance-engine", "192.0.2.7", 443, 1, 0),
        ("appliance-gateway", "192.0.2.7", 443, 1, 0),
        ("appliance-gateway", "127.0.0.1", 53, 1, 0),
        ("appliance-gateway", "127.0.0.1", 8443, 0, 0),
        ("root", "192.0.2.7", 443, 0, 1),
        ("root", "127.0.0.1", 53, 0, 0),
    ],
)
def test_packet_is_counted_for_whom_it_left(
    host: NspawnHost, user: str, address: str, port: int, services: int, others: int
) -> None:
    assert send(host, user, address, port) == {"services": services, "others": others}


def test_answers_of_a_gateway_that_the_network_reaches_are_no_attempts(host: NspawnHost, tmp_path: Path) -> None:
    put(host, tmp_path, "count", "network")
    host.run(["ip", "address", "add", "192.0.2.1/24", "dev", "lo"])
    command = "import socket, sys; socket.create_connection(('192.0.2.7', 9), 1, ('192.0.2.1', int(sys.argv[1])))"
    found = []
    for port in ("8443", "8444"):
        before = counted(host)
        words = ["setpriv", "--reuid=appliance-gateway", "--clear-groups", "python3", "-c", command, port]
        host.run(words, check=False)
        found.append({name: value > before[name] for name, value in counted(host).items()})
    host.run(["ip", "address", "del", "192.0.2.1/24", "dev", "lo"])
    put(host, tmp_path, "count")
    assert found[0] == {"services": False, "others": False}
    assert found[1]["services"]


def test_numbers_stay_when_the_unit_starts_again_and_when_it_reloads(host: NspawnHost) -> None:
    send(host, "root", "192.0.2.7", 443)
    before, since = counted(host), host.run(["cat", "/run/appliance-egress/since"]).out
    for verb in ("restart", "reload", "restart"):
        host.run(["systemctl", verb, UNIT])
    assert counted(host) == before
    assert host.run(["cat", "/run/appliance-egress/since"]).out == since
    assert send(host, "root", "192.0.2.7", 443) == {"services": 0, "others": 1}


def test_rules_that_were_loaded_are_kept_to_compare_and_differ_where_one_is_taken_away(host: NspawnHost) -> None:
    listing = ["nft", "--stateless", "list", "table", "inet", "appliance_egress"]
    loaded = host.run(["cat", "/run/appliance-egress/rules"]).out
    assert host.run(listing).out == loaded
    host.run(["nft", "flush", "chain", "inet", "appliance_egress", "out"])
    assert host.run(listing).out != loaded
    host.run(["systemctl", "restart", UNIT])
    assert host.run(listing).out == loaded


def test_counter_comes_back_when_the_rules_of_the_site_are_loaded_again(host: NspawnHost) -> None:
    host.run(["sh", "-c", "printf 'flush ruleset\\ntable inet own {\\n}\\n' >/etc/nftables.conf"])
    host.run(["systemctl", "start", "nftables"])
    host.run(["systemctl", "restart", "nftables"])
    host.run(["systemctl", "reload", "nftables"])
    host.run(["sh", "-c", f"for i in $(seq 50); do systemctl is-active -q {UNIT} && exit 0; sleep 0.1; done; exit 1"])
    assert send(host, "root", "192.0.2.7", 443) == {"services": 0, "others": 1}


def test_site_that_counts_no_more_has_no_table(host: NspawnHost, tmp_path: Path) -> None:
    put(host, tmp_path, "none")
    tables = host.run(["nft", "list", "tables"]).out
    assert "appliance_egress" not in tables
    put(host, tmp_path, "count")
    assert counted(host) == {"services": 0, "others": 0}


def test_machine_without_nftables_has_nothing_to_remove(host: NspawnHost, tmp_path: Path) -> None:
    host.run(["mv", "/usr/sbin/nft", "/usr/sbin/nft.away"])
    try:
        put(host, tmp_path, "none")
        assert host.run(["systemctl", "is-active", UNIT]).out == "active\n"
    finally:
        host.run(["mv", "/usr/sbin/nft.away", "/usr/sbin/nft"])


def test_reboot_starts_the_counter_before_the_network(host: NspawnHost, tmp_path: Path) -> None:
    put(host, tmp_path, "count")
    host.stop()
    host.boot()
    assert counted(host) == {"services": 0, "others": 0}


def test_unit_that_fails_once_at_the_start_of_the_machine_counts_a_moment_later(host: NspawnHost) -> None:
    """While other units of the start end, systemd 252 sometimes cannot build a unit's view of the files."""
    once = "/run/appliance-egress/once"
    folder = f"/run/systemd/system/{UNIT}.d"
    fails = f"[Service]\nRestartSec=0.1\nExecStartPre=/bin/sh -c 'test -e {once} || {{ touch {once}; exit 226; }}'\n"
    host.run(["mkdir", "-p", folder])
    host.run(["sh", "-c", 'printf "%s" "$1" >"$2"', "sh", fails, f"{folder}/fails.conf"])
    host.run(["nft", "delete", "table", "inet", "appliance_egress"])
    host.run(["systemctl", "daemon-reload"])
    assert host.run(["systemctl", "restart", UNIT], check=False).code == 1
    until = time.monotonic() + 60
    while host.run(["systemctl", "is-active", UNIT], check=False).out.strip() != "active":
        assert time.monotonic() < until
        time.sleep(0.1)
    assert counted(host)
    host.run(["rm", "-r", folder, once])
    host.run(["systemctl", "daemon-reload"])
