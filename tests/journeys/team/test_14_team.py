"""A team on another machine: certificates, keys, a flood by one of them, and the end of a key.

Two hosts on one switch that leads nowhere. The first serves; on the second a person uses the `openai` package as it
comes from the package index, with the certificate of the site's own authority.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.bed.fixtures import tree_folder
from tests.bed.fleet import Fleet
from tests.bed.host import Finished, FolderStick
from tests.bed.nspawn import NspawnHost
from tests.bed.tool import put_tool
from tests.bed.trees import DEBIAN_12
from tests.journeys.conftest import Demo, appliance

pytestmark = [pytest.mark.bed, pytest.mark.ci, pytest.mark.timeout(600)]

SITE = """
bind: {address}
tls: {{certificate: /etc/appliance/tls/server.pem, key: /etc/appliance/tls/server.key}}
slots: 2
"""
ASK = """
import json, os, sys, openai
client = openai.OpenAI(max_retries=0, timeout=200)
words = [{"role": "user", "content": "Name the capital of France."}]
try:
    answer = client.chat.completions.create(model="smollm2-135m", messages=words, max_tokens=8)
    print(json.dumps({"status": 200, "text": answer.choices[0].message.content}))
except openai.APIStatusError as error:
    print(json.dumps({"status": error.status_code, "code": error.code}))
except openai.APIConnectionError as error:
    print(json.dumps({"status": 0, "code": type(error.__cause__).__name__ + ": " + str(error.__cause__)}))
"""
# Asks in many threads until it gets 401, and then shows what it got.
FLOOD = """
import collections, json, openai, threading
client = openai.OpenAI(max_retries=0, timeout=200)
words = [{"role": "user", "content": "Count as far as you can."}]
seen, is_over = collections.Counter(), threading.Event()
def flood():
    while not is_over.is_set():
        try:
            for _ in client.chat.completions.create(
                model="smollm2-135m", messages=words, max_tokens=200, stream=True
            ):
                if not is_over.is_set() and not seen["token"]:
                    print("flooding", flush=True)
                seen["token"] += 1
            seen["answer"] += 1
        except openai.APIStatusError as error:
            seen[f"{error.status_code} {error.code}"] += 1
            if error.status_code == 401:
                is_over.set()
        except openai.APIError as error:
            seen[f"stream {error.code}"] += 1
threads = [threading.Thread(target=flood) for _ in range(24)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(seen), flush=True)
"""
# Reads one long stream, and shows whether it ended as it must.
STREAM = """
import openai
words = [{"role": "user", "content": "Count as far as you can."}]
bias = {"0": -100, "1": -100, "2": -100}
seen = reason = 0
try:
    for part in openai.OpenAI(max_retries=0, timeout=200).chat.completions.create(
        model="smollm2-135m", messages=words, max_tokens=600, stream=True, logit_bias=bias
    ):
        if not seen:
            print("begun", flush=True)
        seen, reason = seen + 1, reason or part.choices[0].finish_reason
    print(f"ended {reason}", flush=True)
except openai.OpenAIError as error:
    print(f"ended {error!r}", flush=True)
"""
# The certificate that a new connection is shown, as its digest.
SHOWN = """
import hashlib, ssl, sys
print(hashlib.sha256(ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((sys.argv[1], 8443)))).hexdigest())
"""


@dataclass
class Team:
    """The host that serves, and the machine of the people who ask."""

    serving: NspawnHost
    client: NspawnHost
    address: str

    def type(self, *words: str) -> Finished:
        """One command of the operator."""
        return self.serving.run(["appliance", *words], timeout_s=300)

    def grant(self, *words: str) -> str:
        """A new key."""
        return str(json.loads(self.type("access", *words, "--json").out)["key"])

    def env(self, key: str) -> dict[str, str]:
        """What a person sets: address, key and authority."""
        return {
            "OPENAI_BASE_URL": f"https://{self.address}:8443/v1",
            "OPENAI_API_KEY": key,
            "SSL_CERT_FILE": "/root/ca.pem",
            "PYTHONPATH": "/root/client",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def ask(self, key: str, **env: str) -> dict[str, Any]:
        """One question from the other machine."""
        done = self.client.run(["python3", "-c", ASK], env={**self.env(key), **env}, timeout_s=250)
        return dict(json.loads(done.out))

    def certificate(self) -> str:
        """The digest of the certificate that the other machine is shown."""
        return self.client.run(["python3", "-c", SHOWN, self.address]).out.strip()

    def shell(self, line: str) -> str:
        """What a line of shell on the host that serves prints, errors with it."""
        return self.serving.run(["sh", "-c", f"{line} 2>&1"], check=False).out

    def events(self, kind: str) -> list[dict[str, str]]:
        """The entries of the journal for one kind of event."""
        shown = self.serving.run(["journalctl", "--no-pager", "--output", "json", f"APPLIANCE_EVENT={kind}"]).out
        return [json.loads(line) for line in shown.splitlines()]


@pytest.fixture(scope="module")
def team(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    packages = tmp_path_factory.mktemp("packages")
    _copy_client(packages)
    with Fleet(tree_folder(DEBIAN_12), size=2) as fleet:
        serving, client = fleet.hosts
        tool = put_tool(serving, demo.stick)
        serving.put(demo.workspace / "trust/root.json", "/root/root.json")
        shown = json.loads(appliance("trust", "show", "--workspace", demo.workspace, "--json").out)
        [fingerprint] = shown["roles"]["root"]["fingerprints"]
        serving.run([*tool, "trust", "pin", "/root/root.json", "--fingerprint", fingerprint])
        stick = serving.plug(FolderStick("stick", demo.stick, is_read_only=True))
        serving.run([*tool, "install", stick, "--yes"], timeout_s=280)
        # No library is executed from a stick.
        folder = client.plug(FolderStick("client", packages, is_read_only=True))
        client.run(["cp", "-r", folder, "/root/client"])
        made = Team(serving, client, fleet.addresses[0])
        _make_reachable(made, tmp_path_factory.mktemp("site"))
        yield made
        assert [host.attempts().total for host in fleet.hosts] == [0, 0]


def _copy_client(folder: Path) -> None:
    """Copy the client and all that it requires, as they are installed here."""
    todo, done = {"openai"}, set[str]()
    while todo:
        name = todo.pop()
        done.add(name)
        found = distribution(name)
        wanted = [Requirement(line) for line in found.requires or ()]
        needed = {one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})}
        todo |= needed - done
        for file in found.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), folder / file)


def _make_reachable(team: Team, folder: Path) -> None:
    """What an operator types, and what the courier of the authority's certificate does."""
    team.type("tls", "create", "--name", "ai.site", "--address", team.address, "--address", "127.0.0.1")
    (folder / "site.yaml").write_text(SITE.format(address=team.address))
    team.serving.put(folder / "site.yaml", "/etc/appliance/site.yaml")
    team.type("config", "apply")
    team.serving.get("/etc/appliance/tls/ca.pem", folder / "ca.pem")
    team.client.put(folder / "ca.pem", "/root/ca.pem")


def test_person_on_another_machine_is_served_over_tls_with_a_key(team: Team) -> None:
    key = team.grant("grant", "ann")
    assert team.ask(key)["status"] == 200
    assert team.ask("ak-0123456789ab-" + "A" * 43) == {"status": 401, "code": "invalid_api_key"}
    # Control: without the site's authority the client itself refuses the connection.
    refused = team.ask(key, SSL_CERT_FILE="")
    assert refused["status"] == 0
    assert "CERTIFICATE_VERIFY_FAILED" in refused["code"]


def test_flood_by_one_key_leaves_the_other_served_until_that_key_is_revoked(team: Team) -> None:
    flood, other = team.grant("grant", "flood"), team.grant("grant", "other")
    start = 'cd /root && (python3 -c "$0" >flood.out 2>flood.err &) && ' + _wait("grep -q flooding flood.out")
    team.client.run(["sh", "-c", start, FLOOD], env=team.env(flood), timeout_s=200)
    assert team.ask(other)["status"] == 200
    team.type("access", "revoke", "flood")
    # The flood ends when its key gets 401: that it ends at all is the revocation.
    team.client.run(["sh", "-c", _wait("grep -q '^{' flood.out")], timeout_s=200)
    seen = json.loads(team.client.run(["tail", "-n", "1", "/root/flood.out"]).out)
    statuses = {name.split()[0] for name in seen}
    assert statuses <= {"token", "answer", "401", "429", "stream"}, seen
    assert any(name.startswith("401") for name in seen)
    assert team.ask(other)["status"] == 200


def test_rotated_key_takes_the_place_of_the_old_one(team: Team) -> None:
    old = team.grant("grant", "bob")
    new = team.grant("rotate", "bob")
    assert (team.ask(old)["status"], team.ask(new)["status"]) == (401, 200)


def test_status_is_right_and_shows_until_when_the_certificate_is_good(team: Team) -> None:
    shown = json.loads(team.type("status", "--json").out)
    assert (shown["exit_code"], shown["tls"]["names"]) == (0, ["ai.site"])
    assert shown["tls"]["days_left"] > 30


def test_new_certificate_and_key_are_taken_under_a_stream(team: Team) -> None:
    key, before, reloads = team.grant("grant", "dora"), team.certificate(), len(team.events("tls.reloaded"))
    start = 'cd /root && (python3 -c "$0" >stream.out 2>&1 &) && ' + _wait("grep -q begun stream.out")
    team.client.run(["sh", "-c", start, STREAM], env=team.env(key), timeout_s=200)
    gateway = team.shell("systemctl show --value --property=MainPID appliance-gateway")
    team.type("tls", "renew", "--new-key")
    team.serving.run(["systemctl", "reload", "appliance-gateway"])
    team.serving.run(
        ["sh", "-c", _wait(f"[ $(journalctl APPLIANCE_EVENT=tls.reloaded -o cat | wc -l) -gt {reloads} ]")]
    )
    now = team.certificate()
    team.client.run(["sh", "-c", _wait("grep -q ended /root/stream.out")], timeout_s=200)
    assert team.client.run(["cat", "/root/stream.out"]).out == "begun\nended length\n"
    assert team.shell("systemctl show --value --property=MainPID appliance-gateway") == gateway
    assert now != before
    [entry] = team.events("tls.reloaded")[reloads:]
    assert entry["APPLIANCE_CERTIFICATE"] == now
    assert (entry["_SYSTEMD_UNIT"], entry["PRIORITY"]) == ("appliance-gateway.service", "6")
    assert team.ask(key)["status"] == 200


def test_key_of_the_server_is_read_by_the_gateway_and_by_no_engine(team: Team) -> None:
    key = "/etc/appliance/tls/server.key"
    assert team.shell(f"stat -c '%U %G %a' {key}") == "appliance-gateway root 400\n"
    read = "runuser -u {0} -- head -c 10 " + key
    assert team.shell(read.format("appliance-gateway")) == "-----BEGIN"
    assert "Permission denied" in team.shell(read.format("appliance-engine"))


def test_keys_and_usage_are_private_to_the_gateway(team: Team) -> None:
    assert team.shell("stat -c '%U %G %a' /var/lib/appliance/access.db") == "root appliance 640\n"
    assert team.shell("stat -c '%U %a' /var/lib/appliance-gateway") == "appliance-gateway 700\n"
    assert team.shell("stat -c '%U %a' /var/lib/appliance-gateway/usage.db") == "appliance-gateway 600\n"
    assert "Permission denied" in team.shell("runuser -u appliance-engine -- ls /var/lib/appliance-gateway")


def test_site_goes_back_to_plain_http_on_this_machine_alone(team: Team, tmp_path: Path) -> None:
    key = team.grant("grant", "eve")
    (tmp_path / "site.yaml").write_text("slots: 2\n")
    team.serving.put(tmp_path / "site.yaml", "/etc/appliance/site.yaml")
    team.type("config", "apply")
    assert team.ask(key)["status"] == 0
    look = "python3 -c \"import urllib.request as r; print(r.urlopen('http://127.0.0.1:8443/readyz').status)\""
    assert team.shell(look) == "200\n"
    assert team.type("status").code == 0
    assert team.shell("ss -tlnH | awk '{print $4}' | grep 8443") == "127.0.0.1:8443\n"


def test_purge_takes_keys_usage_and_certificates_with_it(team: Team) -> None:
    team.type("uninstall", "--purge", "--yes")
    left = "ls -d /var/lib/appliance* /etc/appliance /run/appliance* /opt/appliance | grep -v 'No such file'"
    assert team.shell(left) == ""


def _wait(condition: str) -> str:
    return f"for i in $(seq 900); do {condition} && exit 0; sleep 0.2; done; exit 1"
