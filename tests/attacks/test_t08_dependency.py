"""T8: a package that no signed file brings gets into the environment that runs with the appliance's rights."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from appliance.builder.wheels.reader import wheel_record
from appliance.host.install import os_packages
from appliance.host.install.os_packages import install_packages, wanted_packages
from appliance.host.layout.install_lock import hold
from appliance.host.layout.prefix import Prefix
from appliance.host.process.programs import Programs
from appliance.host.release.bootstrap import find_python, make_venv
from appliance.host.release.environment import Interpreter, build_environment, site_packages
from appliance.host.release.environment_check import check_environment
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import Contents, File
from bundles.progress import ignore
from signing.digest import sha256
from signing.errors import ApplyRestoredError, DamagedError
from tests.appliance.pool import Pool, require_tools
from tests.appliance.web import wheel
from tests.attacks.harness import Stick, guard_off, refused, row

ROW = row(8)
SYSTEM = "debian-12"
HERE = ".".join(map(str, sys.version_info[:2]))
UV = Path(sys.prefix) / "bin" / "uv"


@dataclass
class Environment:
    """A release whose environment holds one signed wheel, `honest`, whose metadata requires `evil`."""

    prefix: Prefix
    release: Path
    contents: Contents
    python: Interpreter
    programs: Programs

    @property
    def site(self) -> Path:
        return self.release / "venv" / site_packages(self.python)

    def build(self) -> None:
        make_venv(self.release, self.python, self.programs)
        build_environment(self.prefix, self.release, self.contents, self.python, self.programs, UV)

    def check(self) -> None:
        check_environment(self.prefix, self.release, self.contents, self.python, ignore)


@pytest.fixture
def environment(stick: Stick, tmp_path: Path) -> Iterator[Environment]:
    prefix = Prefix.at(tmp_path / "host")
    prefix.create()
    release = prefix.releases / "1.0.0-0123456789ab"
    (release / "wheels").mkdir(parents=True)
    name, data = "honest-1.0-py3-none-any.whl", wheel("honest", requires=["evil"])
    (release / "wheels" / name).write_bytes(data)
    record = wheel_record(release / "wheels" / name)
    chunks = (Chunk(sha256(data), len(data)),)
    file = File(f"wheels/{name}", "wheel", 0o644, len(data), sha256(data), chunks, record=record)
    contents = replace(stick.open().value.contents, files=(file,))
    python = find_python((HERE,), os.environ["PATH"])
    assert python is not None
    with hold(prefix) as lock:
        yield Environment(prefix, release, contents, python, Programs(prefix.scratch, lock))


def plant_wheel(environment: Environment) -> None:
    """Lay what the signed wheel asks for beside it, where uv looks for wheels."""
    (environment.release / "wheels" / "evil-1.0-py3-none-any.whl").write_bytes(wheel("evil"))


def plant_module(environment: Environment) -> None:
    (environment.site / "evil.py").write_text("print('evil runs')\n")


def test_unattacked_environment_holds_what_was_signed(environment: Environment) -> None:
    environment.build()
    environment.check()
    assert (environment.site / "honest.py").exists()


def test_attacked_by_a_wheel_beside_the_signed_ones_that_nothing_lists(environment: Environment) -> None:
    plant_wheel(environment)
    environment.build()
    environment.check()
    assert not list(environment.site.glob("evil*"))


def test_attacked_by_another_wheel_under_the_signed_name(environment: Environment) -> None:
    [path] = (environment.release / "wheels").iterdir()
    path.write_bytes(wheel("honest", files={"honest.py": b"evil = True\n"}))
    # Copying from the medium has replaced the file long before. Its RECORD is not the signed one, and uv, which has the
    # signed hash, would refuse it too.
    with pytest.raises(DamagedError) as caught:
        environment.build()
    assert caught.value.code == "contents.file-changed"
    with (
        guard_off("appliance.host.release.environment.check_unpacked", lambda *_: 0),
        pytest.raises(ApplyRestoredError) as uv,
    ):
        environment.build()
    assert uv.value.code == "environment.refused"
    assert not (environment.site / "honest.py").exists()


def test_attacked_by_a_module_planted_in_the_environment(environment: Environment) -> None:
    environment.build()
    plant_module(environment)
    site = environment.site.relative_to(environment.release)
    refused(ROW, environment.check, "release.unlisted", f"{site}/evil.py")


def test_attacked_by_the_machines_own_settings_for_installers(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "evil-1.0-py3-none-any.whl").write_bytes(wheel("evil"))
    for name in ("UV_FIND_LINKS", "PIP_FIND_LINKS"):
        monkeypatch.setenv(name, str(tmp_path / "evil"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "evil"))
    environment.build()
    environment.check()
    assert not list(environment.site.glob("evil*"))


@pytest.fixture
def packages(environment: Environment, tmp_path: Path) -> Environment:
    """The release, with one signed package for this system that depends on `evil`."""
    require_tools()
    data = Pool(tmp_path).add("honest-tool", depends="evil").read_bytes()
    folder = environment.release / "os-packages" / SYSTEM
    folder.mkdir(parents=True)
    (folder / "honest-tool_1.0_amd64.deb").write_bytes(data)
    path = f"os-packages/{SYSTEM}/honest-tool_1.0_amd64.deb"
    file = File(path, "os-package", 0o644, len(data), sha256(data), (Chunk(sha256(data), len(data)),))
    environment.contents = replace(environment.contents, files=(file,))
    return environment


def wanted(environment: Environment, system: str = SYSTEM) -> list[str]:
    found = wanted_packages(environment.prefix, environment.release, environment.contents, system)
    return [package.name for package in found]


def test_unattacked_machine_wants_the_signed_package(packages: Environment) -> None:
    assert wanted(packages) == ["honest-tool"]
    assert wanted(packages, "debian-99") == []


def test_attacked_by_a_package_beside_the_signed_ones_that_nothing_lists(packages: Environment, tmp_path: Path) -> None:
    evil = Pool(tmp_path / "other").add("evil")
    (packages.release / "os-packages" / SYSTEM / evil.name).write_bytes(evil.read_bytes())
    assert wanted(packages) == ["honest-tool"]


def test_attacked_by_the_machines_own_sources_for_packages(
    packages: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apt.conf").write_text(f'Dir::Etc::sourcelist "{tmp_path}/sources.list";')
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{tmp_path} ./\n")
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    # What the package asks for stands in no signed file: apt must not find it anywhere. It only simulates.
    monkeypatch.setattr(os_packages, "_MODE", ("--simulate",))
    monkeypatch.setattr(os_packages, "_FINISH", ("/bin/true",))
    monkeypatch.setattr(os_packages, "_POLICY", tmp_path / "policy-rc.d")
    found = wanted_packages(packages.prefix, packages.release, packages.contents, SYSTEM)
    with pytest.raises(ApplyRestoredError) as caught:
        install_packages(found, packages.programs)
    assert caught.value.code == "packages.refused"
    assert "evil" in caught.value.found or "broken packages" in caught.value.found


def test_unguarded_the_planted_module_runs(environment: Environment) -> None:
    environment.build()
    plant_module(environment)
    with guard_off(ROW.guard, lambda *_: None):
        environment.check()
    python = environment.release / "venv" / "bin" / "python"
    done = subprocess.run([python, "-I", "-c", "import evil"], capture_output=True, text=True)
    assert done.stdout == "evil runs\n"
