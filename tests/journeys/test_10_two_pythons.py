"""One bundle for two releases of Debian, each with a Python of its own: it is installed on both, and serves on both."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.builder.lock.lockfile import lock_path
from bundles.bundle import open_bundle
from signing.floors import Floors
from tests.bed.fixtures import quiet_nspawn_host
from tests.bed.host import FolderStick
from tests.bed.tool import put_tool
from tests.bed.trees import DEBIAN_12, DEBIAN_13, Tree
from tests.journeys.conftest import RECIPE, appliance
from tests.journeys.test_05_services import ASK
from tests.toy import NOW

pytestmark = [pytest.mark.bed, pytest.mark.ci, pytest.mark.network, pytest.mark.timeout(600)]

ONE = 'targets: [{os: debian-12, arch: x86_64, python: ["3.11"]}]'
TWO = f'{ONE[:-1]}, {{os: debian-13, arch: x86_64, python: ["3.13"]}}]'


@dataclass(frozen=True)
class Made:
    """A bundle for two systems, and what it is trusted by."""

    bundle: Path
    root: Path
    fingerprint: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("two")
    recipe, workspace = folder / "two-pythons.yaml", folder / "workspace"
    text = RECIPE.read_text().replace("name: smollm2\n", "name: two-pythons\n").replace(ONE, TWO)
    assert TWO in text
    recipe.write_text(text)
    # What the demo's lock pins stays; the wheels of the other Python are looked up.
    shutil.copy(lock_path(RECIPE), lock_path(recipe))
    locked = appliance("lock", recipe)
    assert locked.code == 0, locked.err
    assert appliance("init", workspace).code == 0
    built = appliance("build", recipe, "--workspace", workspace)
    assert built.code == 0, built.err
    shown = json.loads(appliance("trust", "show", "--workspace", workspace, "--json").out)
    bundle = workspace / "dist/two-pythons-1.0.0"
    return Made(bundle, workspace / "trust/root.json", shown["roles"]["root"]["fingerprints"][0])


def test_wheels_that_only_one_python_takes_lie_in_a_folder_of_its_own(made: Made) -> None:
    contents = open_bundle(made.bundle, made.root.read_bytes(), Floors(), NOW).value.contents
    folders = {Path(file.path).parent.name for file in contents.of_kind("wheel")}
    assert folders == {"wheels", "cp311", "cp313"}
    assert [target.python for target in contents.targets] == [("3.11",), ("3.13",)]


@pytest.mark.parametrize(("tree", "python"), [(DEBIAN_12, "3.11"), (DEBIAN_13, "3.13")], ids=["debian-12", "debian-13"])
def test_each_system_installs_the_wheels_of_its_own_python_and_serves(made: Made, tree: Tree, python: str) -> None:
    with quiet_nspawn_host(tree) as host:
        tool = put_tool(host, made.bundle, python)
        host.put(made.root, "/root/root.json")
        stick = host.plug(FolderStick("stick", made.bundle, is_read_only=True))
        host.run([*tool, "trust", "pin", "/root/root.json", "--fingerprint", made.fingerprint])
        done = host.run([*tool, "install", stick, "--json"], check=False, timeout_s=280)
        assert done.code == 0, done.err
        status = json.loads(host.run(["appliance", "status", "--json"]).out)
        assert status["name"] == "two-pythons"
        reply = json.loads(host.run(["python3", "-c", ASK, "8443"]).out)
        assert reply["status"] == 200
        assert reply["headers"]["appliance-release"] == status["manifest"]
        folders = host.run(["sh", "-c", "ls -d /opt/appliance/current/venv/lib/python3*"]).out.split()
        assert [Path(path).name for path in folders] == [f"python{python}"]
