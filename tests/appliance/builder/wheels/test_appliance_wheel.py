"""The program packs itself: the same bytes from a checkout and from its own wheel, by any user, in any folder."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import packaging
import pytest
import uv
from packaging.requirements import Requirement

from appliance.builder.assembly import inputs
from appliance.builder.cache.content_store import Cache
from appliance.builder.wheels import appliance_wheel
from appliance.builder.wheels.appliance_wheel import build_appliance_wheel, own_licence
from appliance.builder.wheels.reader import wheel_metadata, wheel_record
from appliance.resources import docs_path, playbooks_path
from signing.errors import ApplianceError

EPOCH = 1_700_000_000
ROOT = Path(__file__).parents[4]
BUILD = (
    "import sys; from pathlib import Path; from appliance.builder.wheels.appliance_wheel import build_appliance_wheel\n"
    f"print(build_appliance_wheel(Path(sys.argv[1]), {EPOCH}))\n"
)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_appliance_wheel(tmp_path_factory.mktemp("wheel"), EPOCH)


def test_wheel_holds_the_program_its_playbooks_recipes_and_pages_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"appliance", "bundles", "signing", "airgap_appliance-0.1.0.dist-info"}
    assert "appliance/cli/main.py" in names
    assert "bundles/recipes/smollm2.lock.json" in names
    playbooks = [path for path in playbooks_path().iterdir() if path.is_file() and not path.name.startswith(".")]
    assert {f"appliance/playbooks/{path.name}" for path in playbooks} <= set(names)
    assert {f"appliance/docs/{path.name}" for path in docs_path().glob("*.md")} <= set(names)
    assert {"appliance/docs/README.md", "bundles/FORMAT.md", "signing/TRUST.md"} <= set(names)
    shown = ("page.html", "page.css", "page.js", "handbook.html", "handbook_frame.html", "dashboard.json")
    assert {f"appliance/serve/observation/{name}" for name in shown} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc") or "/." in name]
    assert names == sorted(names, key=lambda name: (".dist-info/" in name, name))


def test_record_names_every_file_with_its_digest_and_size(built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        record = archive.read("airgap_appliance-0.1.0.dist-info/RECORD").decode()
        rows = {row[0]: row[1:] for row in csv.reader(record.splitlines())}
        assert rows.pop("airgap_appliance-0.1.0.dist-info/RECORD") == ["", ""]
        assert sorted(rows) == sorted(name for name in archive.namelist() if not name.endswith("/RECORD"))
        for name, (digest, size) in rows.items():
            data = archive.read(name)
            encoded = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            assert (digest, int(size)) == (f"sha256={encoded}", len(data))
    assert wheel_metadata(built) == ("airgap-appliance", "0.1.0", "Apache-2.0")
    assert len(wheel_record(built)) == 64


def test_metadata_has_the_fields_of_the_project(built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        fields = HeaderParser().parsestr(archive.read("airgap_appliance-0.1.0.dist-info/METADATA").decode())
        points = archive.read("airgap_appliance-0.1.0.dist-info/entry_points.txt").decode()
        licence = archive.read("airgap_appliance-0.1.0.dist-info/licenses/LICENSE")
    project = (ROOT / "pyproject.toml").read_text()
    assert fields["Requires-Python"] == ">=3.10"
    assert points == "[console_scripts]\nappliance = appliance.cli.main:main\n"
    assert licence == own_licence() == (ROOT / "LICENSE").read_bytes()
    plain = [text for text in fields.get_all("Requires-Dist", []) if "extra" not in text]
    assert len(plain) == project.partition("dependencies = [")[2].partition("]")[0].count('",')
    every = fields.get_all("Requires-Dist", [])
    assert every == sorted(str(Requirement(text)) for text in every)


def test_umask_zone_language_and_time_leave_no_trace(built: Path, tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "TZ": "Asia/Kathmandu", "LANG": "tr_TR.UTF-8", "HOME": "", "PYTHONHASHSEED": "7"}
    command = ["sh", "-c", 'umask 077; exec "$@"', "sh", sys.executable, "-c", BUILD, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert _sha256(Path(done.stdout.strip())) == _sha256(built)


def test_another_date_gives_another_wheel_as_a_control(built: Path, tmp_path: Path) -> None:
    assert _sha256(build_appliance_wheel(tmp_path, EPOCH + 2)) != _sha256(built)
    assert _sha256(build_appliance_wheel(tmp_path, 0)) == _sha256(build_appliance_wheel(tmp_path, 1))


def test_installed_wheel_builds_itself_again_byte_for_byte(built: Path, tmp_path: Path) -> None:
    program = uv.find_uv_bin()
    quiet: dict[str, Any] = {
        "env": {"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        "check": True,
        "capture_output": True,
    }
    subprocess.run([program, "venv", "--no-config", "-p", sys.executable, str(tmp_path / "venv")], **quiet)
    python = tmp_path / "venv" / "bin" / "python"
    install = [program, "pip", "install", "--no-config", "--offline", "--no-index", "--no-deps", "-p", str(python)]
    subprocess.run([*install, str(built)], **quiet)
    # The one library that is needed to read metadata; the rest of the closure would take seconds.
    shutil.copytree(Path(packaging.__file__).parent, tmp_path / "lib" / "packaging")
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'lib')!r})\n" + BUILD
    done = subprocess.run([str(python), "-I", "-c", code, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
    assert Path(done.stdout.strip()).parent == tmp_path
    assert _sha256(Path(done.stdout.strip())) == _sha256(built)
    version = subprocess.run([str(tmp_path / "venv" / "bin" / "appliance")], capture_output=True, text=True)
    assert "No module named 'click'" in version.stderr


def test_link_among_the_programs_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks" / "site.yml").symlink_to("/etc/passwd")
    monkeypatch.setattr(appliance_wheel, "playbooks_path", lambda: tmp_path / "playbooks")
    with pytest.raises(ApplianceError) as caught:
        build_appliance_wheel(tmp_path, EPOCH)
    assert (caught.value.code, caught.value.subject) == ("self.odd-file", str(tmp_path / "playbooks" / "site.yml"))
    assert not list(tmp_path.glob("*.whl"))


def test_two_versions_of_the_program_that_share_a_cache_do_not_take_each_others_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    first, digest = inputs._own_wheel(0, cache)
    monkeypatch.setattr(appliance_wheel, "own_licence", lambda: b"another version")
    second, other = inputs._own_wheel(0, cache)
    assert (first.name, digest != other) == (second.name, True)
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, second)] == [digest, other]
    assert not list(cache.folder("self").glob("making-*"))
