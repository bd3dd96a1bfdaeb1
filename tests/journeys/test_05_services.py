"""The operator installs on a whole machine: services that verify, start at boot, and come back after everything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bed.files_digest import differences
from tests.bed.fixtures import quiet_nspawn_host
from tests.bed.host import Finished, FolderStick
from tests.bed.nspawn import NspawnHost
from tests.bed.tool import put_tool
from tests.bed.trees import DEBIAN_12
from tests.journeys.conftest import RECIPE, Demo, appliance
from tests.journeys.team.escapes import REFUSED_INSIDE, TRY

pytestmark = [pytest.mark.bed, pytest.mark.ci, pytest.mark.timeout(600)]

GATEWAY = "appliance-gateway.service"
READY = "http://127.0.0.1:8443/readyz"
ASK = """
import json, sys, urllib.error, urllib.request
key = open("/etc/appliance/default.key").read().strip()
messages = [{"role": "user", "content": "Name the capital of France."}]
body = {"model": "smollm2-135m", "max_tokens": 4, "messages": messages}
request = urllib.request.Request(f"http://127.0.0.1:{sys.argv[1]}/v1/chat/completions", json.dumps(body).encode())
request.add_header("Authorization", f"Bearer {key}")
request.add_header("Content-Type", "application/json")
try:
    with urllib.request.urlopen(request, timeout=100) as reply:
        print(json.dumps({"status": reply.status, "headers": dict(reply.headers), "body": json.load(reply)}))
except urllib.error.HTTPError as error:
    print(json.dumps({"status": error.code, "headers": {}, "body": json.load(error)}))
"""


NOT_READY = """
import sys, urllib.error, urllib.request
try:
    urllib.request.urlopen(sys.argv[1], timeout=5)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""
AWAIT_FAILED = "for i in $(seq 150); do systemctl is-failed -q {0} && exit 0; sleep 0.2; done; exit 1"
FLIP = (
    "m=$(echo /var/lib/appliance/models/*/*.gguf); [ -e /root/byte ] || "
    "dd if=$m of=/root/byte bs=1 skip=50000000 count=1 status=none; "
    "printf X | dd of=$m bs=1 seek=50000000 conv=notrunc,fsync status=none"
)
CRASH = """
last=0
for i in 1 2 3 4 5; do
    for wait in $(seq 150); do
        now=$(systemctl show --value --property=MainPID {0})
        [ "$now" != 0 ] && [ "$now" != "$last" ] && break
        sleep 0.2
    done
    kill -SEGV "$now" || exit 1
    last=$now
done
for wait in $(seq 150); do systemctl is-failed -q {0} && exit 0; sleep 0.2; done
exit 1
"""


@dataclass
class Site:
    """A host with systemd, the operator's program on it, and the stick of the demo in it."""

    host: NspawnHost
    tool: list[str]
    stick: str

    def install(self, source: str | None = None) -> Finished:
        """Install from the stick, or from another folder on the host."""
        return self.host.run([*self.tool, "install", source or self.stick, "--json"], check=False, timeout_s=280)

    def status(self) -> tuple[int, dict[str, Any]]:
        """The exit code and the answer of `appliance status`."""
        done = self.host.run(["appliance", "status", "--json"], check=False)
        return done.code, json.loads(done.out)

    def ask(self, port: int = 8443) -> dict[str, Any]:
        """One question, as a user of this machine."""
        return dict(json.loads(self.host.run(["python3", "-c", ASK, str(port)]).out))

    def await_ready(self) -> None:
        """Wait until the gateway reports that an engine serves."""
        look = f"import urllib.request; urllib.request.urlopen('{READY}', timeout=5)"
        loop = f'for i in $(seq 300); do python3 -c "{look}" 2>/dev/null && exit 0; sleep 0.2; done; exit 1'
        self.host.run(["sh", "-c", loop], timeout_s=200)

    def await_good(self) -> None:
        """Wait until the trial of a new release has ended."""
        loop = "for i in $(seq 300); do [ -e /var/lib/appliance/change ] || exit 0; sleep 0.2; done; exit 1"
        self.host.run(["sh", "-c", loop], timeout_s=200)

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.host.run(["systemctl", "show", "--value", f"--property={name}", unit]).out.strip()

    def incidents(self) -> list[dict[str, str]]:
        """The entries of incidents in the journal."""
        shown = self.host.run(["journalctl", "--no-pager", "--output", "json", "APPLIANCE_EVENT=incident"]).out
        return [json.loads(line) for line in shown.splitlines()]

    @property
    def engine(self) -> str:
        """The unit of the only engine that runs."""
        listed = self.host.run(["systemctl", "list-units", "--plain", "--no-legend", "appliance-engine@*"]).out
        (line,) = listed.splitlines()
        return line.split()[0]


@pytest.fixture(scope="module")
def site(demo: Demo) -> Iterator[Site]:
    with quiet_nspawn_host(DEBIAN_12) as host:
        tool = put_tool(host, demo.stick)
        host.put(demo.workspace / "trust/root.json", "/root/root.json")
        stick = host.plug(FolderStick("stick", demo.stick, is_read_only=True))
        host.run([*tool, "trust", "pin", "/root/root.json", "--fingerprint", _fingerprint(demo)])
        made = Site(host, tool, stick)
        done = made.install()
        assert done.code == 0, done.err
        yield made


def _fingerprint(demo: Demo) -> str:
    shown = json.loads(appliance("trust", "show", "--workspace", demo.workspace, "--json").out)
    return str(shown["roles"]["root"]["fingerprints"][0])


def test_installed_machine_answers_with_the_digests_of_what_was_signed(site: Site) -> None:
    reply = site.ask()
    assert reply["status"] == 200
    assert reply["body"]["choices"][0]["message"]["content"]
    code, answer = site.status()
    assert code == 0
    assert reply["headers"]["appliance-release"] == answer["manifest"]
    assert reply["headers"]["appliance-model"] == answer["models"][0]["sha256"]
    assert (reply["headers"]["appliance-level"], reply["headers"]["appliance-isolation"]) == ("E2", "netns")
    assert {unit["active"] for unit in answer["services"]} == {"active"}
    assert {unit["enabled"] for unit in answer["services"]} == {"enabled"}


def test_services_run_as_users_that_can_change_nothing(site: Site) -> None:
    for unit, user in ((GATEWAY, "appliance-gateway"), (site.engine, "appliance-engine")):
        process = site.show(unit, "MainPID")
        status = site.host.run(["cat", f"/proc/{process}/status"]).out
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert site.host.run(["ps", "-o", "user:32=", "-p", process]).out.strip() == user
        assert (fields["CapEff"], fields["CapBnd"], fields["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1")
    # Neither owns or may write to anything that serves, nor grant itself a key.
    writable = "find /opt/appliance /etc/appliance /var/lib/appliance ! -type l \\( -user {0} -o -perm -002 \\)"
    for user in ("appliance-gateway", "appliance-engine"):
        assert site.host.run(["sh", "-c", writable.format(user)]).out == ""
    assert site.host.run(["stat", "-c", "%U %G %a", "/var/lib/appliance/access.db"]).out == "root appliance 640\n"
    assert site.host.run(["stat", "-c", "%U %a", "/etc/appliance/default.key"]).out == "root 600\n"


def test_engine_has_no_network_and_the_gateway_nothing_but_this_machine(site: Site) -> None:
    process = site.show(site.engine, "MainPID")
    own = site.host.run(["readlink", f"/proc/{process}/ns/net", "/proc/1/ns/net"]).out.split()
    assert own[0] != own[1]
    interfaces = site.host.run(["cat", f"/proc/{process}/net/dev"]).out
    assert [line.split(":")[0].strip() for line in interfaces.splitlines() if ":" in line] == ["lo"]
    assert site.host.run(["ss", "--tcp", "--listening", "--no-header", "--numeric"]).out.split()[3] == "127.0.0.1:8443"
    for unit in (GATEWAY, site.engine):
        exposure = site.host.run(["systemd-analyze", "security", "--no-pager", unit]).out.splitlines()[-1]
        assert float(exposure.split(": ")[1].split()[0]) < 1.5, exposure


def test_engine_unit_refuses_what_an_engine_that_was_taken_over_would_try(site: Site, tmp_path: Path) -> None:
    [model] = site.host.run(["find", "/var/lib/appliance/models", "-type", "f", "-size", "+1M"]).out.split()
    # The engine's own unit with another program: every setting of the sandbox stays.
    unit = site.host.run(["systemctl", "cat", site.engine]).out.splitlines()
    other = ("ExecCondition", "ExecStart", "ExecStop", "Restart", "RuntimeDirectory", "Type", "Before")
    kept = [line for line in unit if not line.startswith(other)]
    program = ["Type=oneshot", f"Environment=MODEL={model}", "ExecStart=/usr/bin/python3 -I /opt/appliance/try.py"]
    text = "\n".join(kept).replace("[Service]", "\n".join(["[Service]", *program]))
    (tmp_path / "try.py").write_text(TRY)
    (tmp_path / "try.service").write_text(f"{text}\n")
    try:
        site.host.put(tmp_path / "try.py", "/opt/appliance/try.py")
        site.host.put(tmp_path / "try.service", "/etc/systemd/system/try.service")
        site.host.run(["systemctl", "daemon-reload"])
        started = site.host.run(["systemctl", "start", "try.service"], check=False)
        shown = site.host.run(["journalctl", "--no-pager", "--output", "cat", "--unit", "try.service"]).out
        assert started.code == 0, shown
        [inside] = [json.loads(line) for line in shown.splitlines() if line.startswith("{")]
        outside = json.loads(site.host.run(["env", f"MODEL={model}", "python3", "/opt/appliance/try.py"]).out)
    finally:
        site.host.run(["rm", "-f", "/opt/appliance/try.py", "/etc/systemd/system/try.service"])
        site.host.run(["systemctl", "daemon-reload"])
    assert set(outside.values()) == {"yes"}
    assert {name for name, word in inside.items() if word != "yes"} == REFUSED_INSIDE


def test_second_install_changes_nothing_and_disturbs_nobody(site: Site) -> None:
    processes = [site.show(unit, "MainPID") for unit in (GATEWAY, site.engine)]
    before = site.host.files()
    done = site.install()
    assert done.code == 0
    answer = json.loads(done.out)
    assert answer["ansible"]["changed"] == 0
    assert answer["was_complete"] is True
    assert [site.show(unit, "MainPID") for unit in (GATEWAY, site.engine)] == processes
    changed = {path for path in differences(before, site.host.files()) if "/var/lib/appliance/" not in path}
    assert changed == set()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_machine_serves_again_after_a_reboot_and_after_a_crash(site: Site, end: str) -> None:
    getattr(site.host, end)()
    site.host.boot()
    site.await_ready()
    assert site.ask()["status"] == 200
    assert site.status()[0] == 0


def test_engine_refuses_a_model_with_one_flipped_byte_and_install_repairs_it(site: Site) -> None:
    engine = site.engine
    flip = "printf X | dd of=$(echo /var/lib/appliance/models/*/*.gguf) bs=1 seek=50000000 conv=notrunc"
    site.host.run(["sh", "-c", flip])
    site.host.run(["systemctl", "restart", engine])
    site.host.run(
        ["sh", "-c", f"for i in $(seq 100); do systemctl is-failed -q {engine} && exit 0; sleep 0.2; done; exit 1"]
    )
    assert site.show(engine, "ExecMainStatus") == "3"
    assert site.show(engine, "NRestarts") == "0"
    assert "contents.file-changed" in site.host.run(["journalctl", "-u", engine, "-o", "cat"]).out
    code, answer = site.status()
    assert code == 3
    codes = {problem["code"] for problem in answer["errors"]}
    assert codes == {"contents.file-changed", "engine.stopped", "service.not-running"}
    [shown] = answer["engines"]
    assert (shown["status"], shown["reason"]) == ("stopped", "its bytes are not the signed ones")
    site.host.run(["sh", "-c", "sleep 5"])
    refused = site.ask()
    assert refused["status"] == 503
    assert refused["body"]["error"]["code"] == "model_stopped"
    done = site.install()
    assert done.code == 0, done.err
    assert site.ask()["status"] == 200


def test_scrub_is_timed_and_reads_the_models_as_the_user_of_the_engines(site: Site) -> None:
    assert site.show("appliance-scrub.timer", "ActiveState") == "active"
    assert site.show("appliance-scrub.timer", "NextElapseUSecRealtime")
    site.host.run(["systemctl", "start", "appliance-scrub.service"], timeout_s=200)
    assert site.show("appliance-scrub.service", "Result") == "success"
    assert site.host.run(["stat", "-c", "%U", "/var/lib/appliance-engine/scrub.json"]).out == "appliance-engine\n"
    code, answer = site.status()
    assert (code, answer["scrub"]["models"], answer["scrub"]["faults"]) == (0, 1, 0)


def test_scrub_that_finds_a_changed_byte_ends_the_engine_for_good(site: Site) -> None:
    engine, before = site.engine, len(site.incidents())
    site.host.run(["sh", "-c", FLIP])
    assert site.ask()["status"] == 200  # from memory
    done = site.host.run(["systemctl", "start", "appliance-scrub.service"], check=False, timeout_s=200)
    assert done.code != 0
    site.host.run(["sh", "-c", AWAIT_FAILED.format(engine)])
    assert (site.show(engine, "ExecMainStatus"), site.show(engine, "NRestarts")) == ("7", "0")
    [entry] = site.incidents()[before:]
    assert entry["APPLIANCE_MODEL"] == "smollm2-135m"
    assert (entry["APPLIANCE_REASON"], entry["PRIORITY"]) == ("its bytes are not the signed ones", "2")
    site.host.run(["sh", "-c", "sleep 3"])
    refused = site.ask()
    assert (refused["status"], refused["body"]["error"]["code"]) == (503, "model_stopped")
    assert "its bytes are not the signed ones" in site.host.run(["python3", "-c", NOT_READY, READY]).out
    # Nothing starts it, not even where the state of this boot is gone.
    site.host.run(["sh", "-c", f"rm /run/appliance/*/engine.json; systemctl reset-failed {engine}"])
    site.host.run(["systemctl", "restart", engine])
    site.host.run(["sh", "-c", AWAIT_FAILED.format(engine)])
    assert site.show(engine, "ExecMainStatus") == "9"
    # What the disk gave before is back: the record alone holds it.
    site.host.run(["sh", "-c", FLIP.replace("printf X", "cat /root/byte")])
    code, answer = site.status()
    assert code == 9
    assert {problem["code"] for problem in answer["errors"]} == {"engine.stopped", "service.not-running"}
    assert site.host.run(["appliance", "scrub"], check=False).code == 0
    assert site.status()[0] == 9
    done = site.install()
    assert done.code == 0, done.err
    site.await_ready()
    assert site.ask()["status"] == 200
    assert site.status()[0] == 0


def test_engine_that_the_kernel_ends_by_a_bus_error_is_an_incident(site: Site) -> None:
    engine, before = site.engine, len(site.incidents())
    site.host.run(["kill", "-BUS", site.show(engine, "MainPID")])
    site.host.run(["sh", "-c", AWAIT_FAILED.format(engine)])
    assert site.show(engine, "NRestarts") == "0"
    code, answer = site.status()
    assert code == 9
    [shown] = answer["engines"]
    assert (shown["status"], shown["reason"]) == ("stopped", "the disk gave no signed bytes while it served")
    assert [one["APPLIANCE_MODEL"] for one in site.incidents()[before:]] == ["smollm2-135m"]
    assert site.install().code == 0
    site.await_ready()
    assert site.status()[0] == 0


def test_engine_that_crashes_five_times_is_stopped_and_named_and_a_person_starts_it_again(site: Site) -> None:
    engine = site.engine
    gateway = site.show(GATEWAY, "MainPID")
    site.host.run(["sh", "-c", CRASH.format(engine)], timeout_s=200)
    assert site.show(engine, "ExecMainStatus") == "8"
    journal = site.host.run(["journalctl", "-u", engine, "-o", "cat", "--no-pager"]).out
    assert journal.count("SIGSEGV") >= 5
    assert "its engine ended 5 times in 10 minutes" in journal
    code, answer = site.status()
    assert code == 9
    assert "engine.stopped" in {error["code"] for error in answer["errors"]}
    [shown] = answer["engines"]
    assert (shown["status"], shown["reason"]) == ("stopped", "its engine ended 5 times in 10 minutes")
    site.host.run(["sh", "-c", "sleep 2"])
    refused = site.ask()
    assert (refused["status"], refused["body"]["error"]["code"]) == (503, "model_stopped")
    assert "smollm2-135m" in site.host.run(["python3", "-c", NOT_READY, READY]).out
    assert site.show(GATEWAY, "MainPID") == gateway
    site.host.run(["systemctl", "restart", engine])
    site.await_ready()
    assert site.ask()["status"] == 200
    assert site.status()[0] == 0


def test_unit_that_was_weakened_is_reported_and_repaired(site: Site) -> None:
    engine = site.engine
    site.host.run(["sed", "-i", "s/^PrivateNetwork=yes/PrivateNetwork=no/", f"/etc/systemd/system/{engine}"])
    site.host.run(["mkdir", "-p", f"/etc/systemd/system/{GATEWAY}.d"])
    site.host.run(["sh", "-c", f"printf '[Service]\\nUser=root\\n' >/etc/systemd/system/{GATEWAY}.d/own.conf"])
    site.host.run(["systemctl", "daemon-reload"])
    code, answer = site.status()
    assert code == 9
    assert {problem["code"] for problem in answer["errors"]} == {"service.changed", "service.overridden"}
    site.host.run(["rm", "-r", f"/etc/systemd/system/{GATEWAY}.d"])
    assert site.install().code == 0
    assert site.status()[0] == 0
    assert site.ask()["headers"]["appliance-isolation"] == "netns"


def test_site_change_that_cannot_serve_is_taken_back(site: Site) -> None:
    # Somebody takes the port after preflight has found it free: as soon as the new configuration is rendered.
    holder = (
        "import pathlib,socket,time\n"
        "units = pathlib.Path('/opt/appliance/current/config/units/appliance-gateway.socket')\n"
        "while '9443' not in units.read_text(): time.sleep(0.05)\n"
        "s = socket.create_server(('127.0.0.1', 9443)); time.sleep(300)"
    )
    site.host.run(["systemd-run", "--quiet", "--unit=holder", "python3", "-c", holder])
    site.host.run(["sed", "-i", "s/^port: 8443/port: 9443/", "/etc/appliance/site.yaml"])
    done = site.install()
    assert done.code == 7, done.err
    assert "gate.failed" in done.err
    assert site.ask()["status"] == 200
    site.host.run(["systemctl", "stop", "holder"])
    done = site.install()
    assert done.code == 0, done.err
    assert site.ask(9443)["status"] == 200
    site.host.run(["sed", "-i", "s/^port: 9443/port: 8443/", "/etc/appliance/site.yaml"])
    assert site.install().code == 0
    assert site.status()[0] == 0


def test_newer_version_takes_over_and_the_older_one_stops(site: Site, demo: Demo, tmp_path: Path) -> None:
    old = site.engine
    recipe = tmp_path / RECIPE.name
    recipe.write_text(RECIPE.read_text().replace("version: 1.0.0", "version: 1.0.1"))
    shutil.copy(RECIPE.with_name("smollm2.lock.json"), tmp_path)
    workspace = tmp_path / "workspace"
    shutil.copytree(demo.workspace, workspace)
    built = appliance("build", recipe, "--workspace", workspace)
    assert built.code == 0, built.err
    source = site.host.plug(FolderStick("newer", workspace / "dist/smollm2-1.0.1", is_read_only=True))
    site.host.run(["sh", "-c", "echo 'trial: {good_after: 15}' >>/etc/appliance/site.yaml"])
    done = site.install(source)
    assert done.code == 0, done.err
    assert site.show(old, "ActiveState") == "active", "while the new release is on trial, the way back is short"
    site.await_good()
    assert site.engine != old
    assert site.show(old, "ActiveState") == "inactive"
    assert site.show(old, "UnitFileState") == "disabled"
    site.host.stop()
    site.host.boot()
    site.await_ready()
    assert site.ask()["headers"]["appliance-release"] == json.loads(done.out)["manifest"]
    assert site.status()[0] == 0
