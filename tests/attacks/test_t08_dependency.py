"""T8: a package that no signed file brings gets into the environment that runs with the appliance's rights."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from appliance.build.wheels import wheel_record
from appliance.host.bootstrap import find_python, make_venv
from appliance.host.environment import Interpreter, build_environment, site_packages
from appliance.host.environment_check import check_environment
from appliance.host.lock import hold
from appliance.host.prefix import Prefix
from appliance.host.programs import Programs
from bundles.contents import Chunk, Contents, File
from bundles.progress import ignore
from signing.digest import sha256
from signing.errors import ApplyRestoredError, DamagedError
from tests.appliance.web import wheel
from tests.attacks.harness import Stick, guard_off, refused, row

ROW = row(8)
HERE = ".".join(map(str, sys.version_info[:2]))
UV = Path(sys.prefix) / "bin" / "uv"


@dataclass
class Environment:
    """A release whose environment holds one signed wheel, `honest`, which says that it wants `evil`."""

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
    with guard_off("appliance.host.environment.check_unpacked", lambda *_: 0), pytest.raises(ApplyRestoredError) as uv:
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


def test_unguarded_the_planted_module_runs(environment: Environment) -> None:
    environment.build()
    plant_module(environment)
    with guard_off(ROW.guard, lambda *_: None):
        environment.check()
    python = environment.release / "venv" / "bin" / "python"
    done = subprocess.run([python, "-I", "-c", "import evil"], capture_output=True, text=True)
    assert done.stdout == "evil runs\n"
