"""systemd holds the gateway's port: the gateway takes its socket, and refuses one of another address."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import Template

from appliance.host.activation import systemd_services
from appliance.host.activation.systemd_services import SystemdServices
from appliance.host.layout.prefix import Prefix
from appliance.host.layout.unit_files import GATEWAY_SOCKET, GATEWAY_UNIT, RENDERED, SCRUB_TIMER, window_mark
from appliance.host.playbook.text_checks import CHECKS
from appliance.resources import playbooks_path
from appliance.serve.supervisor import listener
from appliance.serve.unit_programs import gateway, startup
from signing.digest import Digest
from signing.errors import DriftError
from tests.toy import NOW

TEMPLATES = playbooks_path() / "roles/gateway/templates"
TAKE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = sys.argv[2] if len(sys.argv) > 2 else str(os.getpid())
from appliance.serve.unit_programs import startup
found = startup.passed_socket()
print(found and found.getsockname()[1], found and os.get_inheritable(found.fileno()))
"""


def take(descriptor: int, *arguments: str, fds: str = "1") -> str:
    """What a process takes that gets this socket as its third descriptor."""
    words = [sys.executable, "-c", TAKE, str(descriptor), *arguments]
    environment = {**os.environ, "LISTEN_FDS": fds, "PYTHONPATH": str(Path(__file__).parents[4])}
    done = subprocess.run(words, env=environment, pass_fds=(descriptor,), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_socket_of_systemd_is_taken_only_where_it_was_passed_to_this_process() -> None:
    with listener.bind("127.0.0.1", 0) as port:
        assert take(port.fileno()) == f"{port.getsockname()[1]} False"
        assert take(port.fileno(), "1") == "None None"
        assert take(port.fileno(), fds="2") == "None None"


def test_gateway_uses_the_socket_of_systemd_and_refuses_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with listener.bind("127.0.0.1", 0) as port:
        number = port.getsockname()[1]
        monkeypatch.setattr(startup, "passed_socket", port.dup)
        with gateway._listener("127.0.0.1", number) as taken:
            assert taken.getsockname() == ("127.0.0.1", number)
        with pytest.raises(DriftError) as caught:
            gateway._listener("127.0.0.1", number + 1 if number < 65535 else 1024)
        assert (caught.value.code, caught.value.exit_code) == ("gateway.other-port", 9)
        assert str(number) in caught.value.found
    monkeypatch.setattr(startup, "passed_socket", lambda: None)
    with gateway._listener("127.0.0.1", 0) as own:
        assert own.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(("bind", "stream"), [("127.0.0.1", "127.0.0.1:443"), ("::1", "[::1]:443")])
def test_socket_unit_holds_the_port_of_the_site_for_this_machine_alone(bind: str, stream: str) -> None:
    text = Template((TEMPLATES / "appliance-gateway.socket.j2").read_text()).render(gateway_bind=bind, gateway_port=443)
    CHECKS["unit"](text)
    assert re.findall(r"^ListenStream=(.*)$", text, re.MULTILINE) == [stream]
    assert re.findall(r"^IPAddress.*$", text, re.MULTILINE) == ["IPAddressDeny=any", "IPAddressAllow=localhost"]


def test_socket_unit_lets_the_network_in_where_the_site_has_bound_it_and_the_gateway_still_reaches_nobody() -> None:
    template = Template((TEMPLATES / "appliance-gateway.socket.j2").read_text())
    text = template.render(gateway_bind="0.0.0.0", gateway_port=443, gateway_reach="network")
    CHECKS["unit"](text)
    assert "IPAddress" not in text
    service = (TEMPLATES / "appliance-gateway.service.j2").read_text()
    assert re.findall(r"^IPAddress.*$", service, re.MULTILINE) == ["IPAddressDeny=any", "IPAddressAllow=localhost"]


def test_gateway_has_no_right_to_bind_a_port_and_needs_its_socket() -> None:
    text = (TEMPLATES / "appliance-gateway.service.j2").read_text()
    assert re.findall(r"^(?:Ambient|CapabilityBounding).*$", text, re.MULTILINE) == [
        "AmbientCapabilities=",
        "CapabilityBoundingSet=",
    ]
    assert f"Requires={GATEWAY_SOCKET}" in text.splitlines()


class SimSystemctl:
    """Records each call that changes something; `active` has the units that run."""

    def __init__(self, *active: str) -> None:
        self.active, self.calls = set(active), list[str]()

    def state(self, unit: str) -> Any:
        return SimpleNamespace(is_active=unit in self.active, has_ended=unit not in self.active)

    def __getattr__(self, name: str) -> Any:
        return lambda units=(), **_: self.calls.append(" ".join([name, *units]))


def restart(monkeypatch: pytest.MonkeyPatch, changed: list[str], *, has_socket: bool, active: bool = True) -> list[str]:
    sim = SimSystemctl(*[GATEWAY_SOCKET] * active)
    monkeypatch.setattr(systemd_services, "systemctl", sim)
    SystemdServices(Prefix(Path("/x")), lambda: NOW)._restart_gateway(changed, has_socket=has_socket)
    return sim.calls


def test_socket_is_left_alone_while_gateways_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    again = f"restart {GATEWAY_UNIT}"
    anew = [f"stop {GATEWAY_UNIT}", f"restart {GATEWAY_SOCKET}", again]
    assert restart(monkeypatch, [GATEWAY_UNIT], has_socket=True) == [again]
    assert restart(monkeypatch, [GATEWAY_SOCKET], has_socket=True) == anew
    assert restart(monkeypatch, [], has_socket=True, active=False) == anew
    assert restart(monkeypatch, [], has_socket=False, active=False) == [again]


def test_return_to_a_release_without_the_socket_removes_it_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = SimSystemctl(GATEWAY_SOCKET)
    monkeypatch.setattr(systemd_services, "systemctl", sim)
    prefix, before = Prefix(tmp_path / "root"), tmp_path / "before"
    prefix.units.mkdir(parents=True)
    (prefix.units / GATEWAY_SOCKET).write_text("[Socket]\n")
    (before / RENDERED).mkdir(parents=True)
    (before / RENDERED / GATEWAY_UNIT).write_text("[Service]\n")
    services = SystemdServices(prefix, lambda: NOW)
    monkeypatch.setattr(services, "_await_served", lambda *_: None)
    monkeypatch.setattr(systemd_services, "open_release", lambda *_: None)
    services.restore(before, tmp_path / "tried")
    assert sim.calls == [
        f"disable {GATEWAY_SOCKET}",
        f"stop {GATEWAY_SOCKET}",
        "reload",
        f"enable {GATEWAY_UNIT}",
        f"restart {GATEWAY_UNIT}",
    ]
    assert not (prefix.units / GATEWAY_SOCKET).exists()


def host_with_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[SystemdServices, SimSystemctl, Prefix]:
    """A host on which the release `1.0.0-aaaaaaaaaaaa` serves, with the units of a second one beside it."""
    prefix = Prefix(tmp_path / "root")
    for folder in (prefix.units, prefix.run_dir, prefix.opt):
        folder.mkdir(parents=True)
    for digit in "ab":
        name = f"appliance-engine@{digit * 12}-toy.service"
        (prefix.units / name).write_text("[Service]\n")
        rendered = prefix.releases / f"1.0.0-{digit * 12}" / RENDERED
        rendered.mkdir(parents=True)
        (rendered / name).write_text("[Service]\n")
    prefix.current.symlink_to(f"releases/1.0.0-{'a' * 12}")
    sim = SimSystemctl()
    monkeypatch.setattr(systemd_services, "systemctl", sim)
    return SystemdServices(prefix, lambda: NOW), sim, prefix


def test_room_is_made_for_the_new_engines_after_the_mark_and_given_back_to_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, sim, prefix = host_with_engines(tmp_path, monkeypatch)
    contents = SimpleNamespace(models=[SimpleNamespace(name="toy")])
    bundle = SimpleNamespace(value=SimpleNamespace(manifest="b" * 64))
    staged: Any = SimpleNamespace(contents=contents, bundle=bundle, path=prefix.releases / f"1.0.0-{'b' * 12}")
    services.make_room(staged)
    assert sim.calls == [f"stop appliance-engine@{'a' * 12}-toy.service"]
    assert window_mark(prefix).exists()
    services.end_candidate(staged)
    assert sim.calls[1:] == [
        f"stop appliance-engine@{'b' * 12}-toy.service",
        f"start appliance-engine@{'a' * 12}-toy.service",
    ]
    assert not window_mark(prefix).exists()


def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sim: SimSystemctl, *files: str) -> None:
    """The gate of an install that has changed no unit of the release that serves: models `one` and `two`."""
    monkeypatch.setattr(systemd_services, "systemctl", sim)
    services = SystemdServices(Prefix(tmp_path), lambda: NOW)
    for name in ("_prepare_access", "_prepare_key"):
        monkeypatch.setattr(services, name, lambda *_: None)
    monkeypatch.setattr(services, "_is_served", lambda _release: True)
    models = [SimpleNamespace(name="one"), SimpleNamespace(name="two")]
    contents = SimpleNamespace(models=models, by_path=dict.fromkeys(files))
    release: Any = SimpleNamespace(
        contents=contents, bundle=SimpleNamespace(value=SimpleNamespace(manifest=Digest("a" * 64)))
    )
    assert not services.follow(release), "it serves already"


ENGINES = [f"appliance-engine@{'a' * 12}-{name}.service" for name in ("one", "two")]


@pytest.mark.parametrize("has_scrub", [True, False])
def test_timer_whose_text_is_unchanged_runs_again_after_an_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_scrub: bool
) -> None:
    sim = SimSystemctl(GATEWAY_SOCKET, *ENGINES)
    follow(tmp_path, monkeypatch, sim, *["playbooks/roles/engine/templates/appliance-scrub.timer.j2"] * has_scrub)
    assert sim.calls == [f"start {SCRUB_TIMER}"] * has_scrub


def test_model_whose_incident_was_cleared_runs_again_beside_those_that_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = SimSystemctl(GATEWAY_SOCKET, ENGINES[0])
    follow(tmp_path, monkeypatch, sim)
    assert sim.calls == [f"restart {ENGINES[1]}"]
