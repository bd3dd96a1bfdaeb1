"""The script that goes back, with a real systemd: units by its own program, and services that only look like ours.

The older release binds its port itself; the newer one gets it from systemd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.host.change import rollback_program
from appliance.host.change.change_file import INSTALL, ROLLBACK, SWITCHING, TRYING, HostChange, format_change
from tests.appliance.host.change.shell_host import NEW, OLD, SINCE, ShellHost
from tests.bed.fixtures import quiet_nspawn_host
from tests.bed.nspawn import NspawnHost
from tests.bed.trees import TREES

pytestmark = [pytest.mark.bed, pytest.mark.ci, pytest.mark.timeout(300)]

GATEWAY, SOCKET = "appliance-gateway.service", "appliance-gateway.socket"
GATEWAY_TEXT = """[Unit]
Description=gateway of {release}
{unit}
[Service]
Type=notify
NotifyAccess=all
ExecStart=/bin/sh -c 'test ! -e /broken-{release} && {serve}'
[Install]
WantedBy=multi-user.target
"""
SOCKET_TEXT = """[Socket]
ListenStream=127.0.0.1:8443
[Install]
WantedBy=sockets.target
"""
WAITS = "systemd-notify --ready && exec sleep infinity"
BINDS = "exec python3 /opt/appliance/binds.py"
BINDING = """import socket, subprocess, time
port = socket.create_server(("127.0.0.1", 8443))
subprocess.run(["systemd-notify", "--ready"], check=True)
time.sleep(1e6)
"""
ENGINE_TEXT = """[Unit]
Before=appliance-gateway.service
[Service]
Type=exec
ExecCondition=/bin/sh -c 'test "$(readlink /opt/appliance/current)" = "releases/{release}"'
RuntimeDirectory=appliance/{release_id}-toy
RuntimeDirectoryPreserve=yes
ExecStart=/bin/sh -c 'touch /run/appliance/{release_id}-toy/engine.sock && exec sleep infinity'
[Install]
WantedBy=multi-user.target
"""


def engine(release: str) -> str:
    return f"appliance-engine@{release[-12:]}-toy.service"


def build(folder: Path) -> Path:
    """The tree of a host on which `NEW` serves."""
    made = ShellHost.make(folder)
    rollback_program.install_rollback_program(made.prefix)
    for name in (OLD, NEW):
        release = made.release(name)
        (release / "config/engine-toy.json").write_text(f'{{"store": "/var/lib/appliance/models/{name}/toy.gguf"}}')
        unit, serve = (f"Requires={SOCKET}\nAfter={SOCKET}", WAITS) if name == NEW else ("", BINDS)
        text = GATEWAY_TEXT.format(release=name, unit=unit, serve=serve)
        (release / "config/units" / GATEWAY).write_text(text)
        (release / "config/units" / engine(name)).write_text(ENGINE_TEXT.format(release=name, release_id=name[-12:]))
    (made.release(NEW) / "config/units" / SOCKET).write_text(SOCKET_TEXT)
    (made.prefix.opt / "binds.py").write_text(BINDING)
    made.put_in_place(NEW)
    for unit in rollback_program.UNITS:
        source = Path(rollback_program.__file__).with_name(unit)
        (made.prefix.units / unit).write_bytes(source.read_bytes())
    return made.prefix.root


@pytest.fixture(scope="module", params=["debian-12", "debian-13"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NspawnHost]:
    root = build(tmp_path_factory.mktemp("systemd"))
    with quiet_nspawn_host(TREES[request.param]) as made:
        for part in ("opt/appliance", "var/lib/appliance", "etc/appliance", "etc/systemd/system"):
            made.put(root / part, f"/tmp/tree/{part}")
        made.run(["sh", "-c", "cp -a /tmp/tree/. / && chown -R 0:0 /opt /var/lib/appliance && systemctl daemon-reload"])
        made.run(["systemctl", "enable", "--now", SOCKET, GATEWAY, engine(NEW), "appliance-recover.service"])
        yield made


def active(host: NspawnHost) -> set[str]:
    units = (SOCKET, GATEWAY, engine(OLD), engine(NEW))
    return {name for name in units if host.run(["systemctl", "is-active", name], check=False).code == 0}


def assert_serves(host: NspawnHost, release: str) -> None:
    assert host.run(["readlink", "/opt/appliance/current"]).out == f"releases/{release}\n"
    assert host.run(["cat", "/etc/appliance/site.yaml"]).out == f"port: {release}\n"
    assert release in host.run(["systemctl", "show", "--property=Description", GATEWAY]).out
    assert host.run(["test", "-e", "/var/lib/appliance/change"], check=False).code == 1
    loop = f"for i in $(seq 100); do systemctl is-active -q {engine(release)} {GATEWAY} && exit 0; sleep 0.1; done"
    host.run(["sh", "-c", f"{loop}; exit 1"])
    host.run(["sh", "-c", "for i in $(seq 100); do systemctl list-jobs | grep -q '^No jobs' && exit; sleep 0.1; done"])
    assert active(host) == {GATEWAY, engine(release)} | ({SOCKET} if release == NEW else set())
    assert host.run(["test", "-e", f"/etc/systemd/system/{SOCKET}"], check=False).code == (release != NEW)


def begin(host: NspawnHost, change: HostChange, folder: Path) -> None:
    (folder / "change").write_bytes(format_change(change))
    host.put(folder / "change", "/var/lib/appliance/change")


def test_units_are_accepted_without_a_warning(host: NspawnHost) -> None:
    names = [f"/etc/systemd/system/{name}" for name in ("appliance-recover.service", "appliance-return.service")]
    done = host.run(["systemd-analyze", "verify", "--man=no", *names], check=False)
    assert (done.code, "appliance-re" in done.err) == (0, False), done.err


def test_rollback_and_back_again_with_services(host: NspawnHost) -> None:
    assert_serves(host, NEW)
    done = host.run(["sh", "/opt/appliance/rollback"])
    assert done.out == f"{OLD} serves; {NEW} served before\n"
    assert_serves(host, OLD)
    host.run(["sh", "/opt/appliance/rollback"])
    assert_serves(host, NEW)


def test_release_whose_gateway_does_not_come_up_gives_way(host: NspawnHost) -> None:
    host.run(["touch", f"/broken-{OLD}"])
    done = host.run(["sh", "/opt/appliance/rollback"], check=False)
    host.run(["rm", f"/broken-{OLD}"])
    assert (done.code, f"{NEW} serves again" in done.err) == (7, True)
    assert_serves(host, NEW)


def test_return_unit_goes_back(host: NspawnHost, tmp_path: Path) -> None:
    begin(host, HostChange(INSTALL, NEW, OLD, TRYING, SINCE), tmp_path)
    host.run(["systemctl", "start", "appliance-return.service"])
    loop = "for i in $(seq 300); do test -e /var/lib/appliance/change || exit 0; sleep 0.1; done; exit 1"
    host.run(["sh", "-c", loop])
    assert_serves(host, OLD)


def test_boot_finishes_a_rollback_and_undoes_an_install(host: NspawnHost, tmp_path: Path) -> None:
    """Power cuts in the middle: the record is there, and the files are those of before."""
    begin(host, HostChange(ROLLBACK, NEW, OLD, SWITCHING, SINCE), tmp_path)
    host.run(["sync"])
    host.kill()
    host.boot()
    assert_serves(host, NEW)
    begin(host, HostChange(INSTALL, NEW, OLD, SWITCHING, SINCE), tmp_path)
    host.kill()
    host.boot()
    assert_serves(host, OLD)
    assert "serves again instead of" in host.run(["journalctl", "-b", "-u", "appliance-recover.service"]).out
