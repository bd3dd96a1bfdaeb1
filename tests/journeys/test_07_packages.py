"""The bundle brings OS packages: a whole machine gets those that it lacks, from the stick and from nowhere else."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from appliance.builder.cache.content_store import Cache, cache_root
from appliance.builder.lock.lockfile import Locked, LockedSystem, lock_path, read_lock, sort_key, write_lock
from appliance.host.install.policy_rc import TEXT
from signing.digest import sha256
from tests.appliance.pool import Pool, require_tools
from tests.bed.fixtures import quiet_nspawn_host
from tests.bed.host import FolderStick
from tests.bed.nspawn import NspawnHost
from tests.bed.tool import put_tool
from tests.bed.trees import DEBIAN_12
from tests.journeys.conftest import RECIPE, Demo, appliance

pytestmark = [pytest.mark.bed, pytest.mark.ci, pytest.mark.timeout(600)]

POLICY = "/usr/sbin/policy-rc.d"
UNIT = "[Service]\nType=oneshot\nExecStart=/bin/touch /run/it-started\n[Install]\nWantedBy=multi-user.target\n"
STARTS = """#!/bin/sh
set -e
test -d /run/systemd/system || exit 0
deb-systemd-helper enable absent.service
deb-systemd-invoke start absent.service >>/root/scripts.log 2>&1 || true
"""
"""What the scripts of a package with a service do when it is installed."""

NAMES = ("absent", "needed", "newer", "older")


@dataclass
class Site:
    """A host on which one package is older and one newer than the bundle's, and the stick with the bundle."""

    host: NspawnHost
    tool: list[str]
    stick: str

    def install(self) -> dict[str, str]:
        """Install; returns each step's note."""
        return {step["step"]: step["note"] for step in self.answer()["steps"]}

    def answer(self) -> dict[str, Any]:
        """Install, and return the answer."""
        done = self.host.run([*self.tool, "install", self.stick, "--json"], check=False, timeout_s=280)
        assert done.code == 0, done.err
        return dict(json.loads(done.out))

    def put_policy(self, data: bytes) -> None:
        """Put a program in the place where maintainer scripts ask."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            Path(file.name).chmod(0o755)
            self.host.put(Path(file.name), POLICY)

    def said(self) -> str:
        """What the scripts of the package with a service said."""
        return self.host.run(["cat", "/root/scripts.log"]).out

    def has(self, path: str) -> bool:
        """Whether a file is there."""
        return self.host.run(["test", "-e", path], check=False).code == 0

    def versions(self) -> dict[str, str]:
        """What is installed of the bundle's packages."""
        shown = self.host.run(["dpkg-query", "--show", "--showformat=${Package} ${Version}\n", *NAMES], check=False)
        return dict(line.split() for line in shown.out.splitlines())


def write_recipe(folder: Path, pool: Pool) -> Path:
    """The demo's recipe with four packages, and its lock; the packages lie in the cache, as after `appliance lock`."""
    recipe = folder / RECIPE.name
    text = RECIPE.read_text().replace('python: ["3.11"]', f'python: ["3.11"], packages: [{", ".join(NAMES)}]')
    recipe.write_text(text.replace("version: 1.0.0", "version: 1.0.9"))
    entries = []
    for name, depends in (("absent", "needed"), ("needed", ""), ("newer", ""), ("older", "")):
        has_service = name == "absent"
        files = {"lib/systemd/system/absent.service": UNIT} if has_service else None
        made = pool.add(name, "1:1.0", depends=depends, files=files, postinst=STARTS if has_service else "")
        data = made.read_bytes()
        file = f"{name}_1.0_amd64.deb"
        entries.append(Locked("os-package", name, "1:1.0", file, len(data), sha256(data), "", system="debian-12"))
        copy = folder / file
        copy.write_bytes(data)
        Cache(cache_root(os.environ)).adopt(copy, sha256(data))
    lock = read_lock(lock_path(RECIPE))
    every = tuple(sorted((*lock.entries, *entries), key=sort_key))
    write_lock(lock_path(recipe), replace(lock, entries=every, systems=(LockedSystem("debian-12", "x86_64", NAMES),)))
    return recipe


@pytest.fixture(scope="module")
def site(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    require_tools()
    folder = tmp_path_factory.mktemp("packages")
    pool = Pool(folder / "pool-of-packages")
    recipe = write_recipe(folder, pool)
    workspace = folder / "workspace"
    shutil.copytree(demo.workspace, workspace)
    built = appliance("build", recipe, "--workspace", workspace)
    for entry in read_lock(lock_path(recipe)).of_kind("os-package"):
        Cache(cache_root(os.environ)).discard(entry.sha256)
    assert built.code == 0, built.err
    bundle = workspace / "dist/smollm2-1.0.9"
    with quiet_nspawn_host(DEBIAN_12) as host:
        for name, version in (("older", "1:0.9"), ("newer", "1:2.0")):
            host.put(pool.add(name, version), f"/root/{name}.deb")
            host.run(["dpkg", "--install", f"/root/{name}.deb"])
        tool = put_tool(host, bundle)
        host.put(workspace / "trust/root.json", "/root/root.json")
        shown = json.loads(appliance("trust", "show", "--workspace", workspace, "--json").out)
        fingerprint = str(shown["roles"]["root"]["fingerprints"][0])
        host.run([*tool, "trust", "pin", "/root/root.json", "--fingerprint", fingerprint])
        yield Site(host, tool, host.plug(FolderStick("stick", bundle, is_read_only=True)))


def test_machine_gets_what_is_absent_or_older_and_its_apt_is_left_alone(site: Site) -> None:
    settings = "find /etc/apt -type f -exec sha256sum {} + | sort"
    before = site.host.run(["sh", "-c", settings]).out
    assert site.versions() == {"newer": "1:2.0", "older": "1:0.9"}
    assert site.install()["packages"] == "absent 1:1.0, needed 1:1.0, older 1:1.0"
    assert site.versions() == {"absent": "1:1.0", "needed": "1:1.0", "newer": "1:2.0", "older": "1:1.0"}
    assert site.host.run(["sh", "-c", settings]).out == before
    assert site.host.run(["dpkg", "--audit"]).out == ""
    assert f"{POLICY} returned 101" in site.said()
    assert not site.has("/run/it-started")
    assert not site.has(POLICY)


def test_second_install_installs_no_package(site: Site) -> None:
    assert site.install()["packages"] == "nothing to install"


def test_package_that_somebody_removed_comes_back(site: Site) -> None:
    site.host.run(["dpkg", "--purge", "absent"])
    assert site.install()["packages"] == "absent 1:1.0"
    assert site.versions()["absent"] == "1:1.0"
    assert not site.has("/run/it-started")


def test_package_would_have_started_its_service(site: Site) -> None:
    site.host.run(["systemctl", "daemon-reload"])
    site.host.run(["deb-systemd-invoke", "start", "absent.service"])
    assert site.has("/run/it-started")


def test_policy_that_a_killed_install_has_left_goes_with_the_next(site: Site) -> None:
    site.put_policy(TEXT)
    assert site.install()["packages"] == "nothing to install"
    assert not site.has(POLICY)


def test_policy_of_the_operator_decides_stays_and_is_reported(site: Site) -> None:
    own = b"#!/bin/sh\nexit 0\n"
    site.put_policy(own)
    site.host.run(["dpkg", "--purge", "absent"])
    site.host.run(["rm", "/root/scripts.log"])
    answer = site.answer()
    assert site.host.run(["cat", POLICY]).out.encode() == own
    assert "returned 101" not in site.said()
    assert any(POLICY in warning for warning in answer["warnings"])
