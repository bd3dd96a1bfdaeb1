"""A bundle of the format before installs on a host of this version, and a bundle of this version replaces it.

`host-VERSION.tar.xz` holds a workspace for trials, as the program of that VERSION wrote it: the bundle `toy-1.0.0` of
`tests/appliance/sim_host.py`, and the keys that signed it. They sign nothing else. Its uv is a script that starts the
one that a test links into the prefix. A new format adds a file and changes none.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from uv import find_uv_bin

from appliance.host.layout.prefix import Prefix
from appliance.host.release.release import open_current
from appliance.host.release.release_check import check_release
from appliance.keys.workspace import Workspace
from tests.appliance.sim_host import SimHost, build_bundle
from tests.appliance.sim_site import Site, new_site
from tests.toy import NOW

HERE = Path(__file__).parent
MAX_BYTES = 64 << 10
ARCHIVES = sorted(HERE.glob("host-*.tar.xz"))


def extract(archive: Path, folder: Path) -> None:
    """Write a committed archive's files into a folder, readable for their owner alone."""
    with tarfile.open(archive) as members:
        for member in members:
            path = folder / member.name
            assert path.resolve().is_relative_to(folder)
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            data = members.extractfile(member)
            assert data is not None
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.read())
            path.chmod(0o600)


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name)
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A host on which nothing is installed yet, and the workspace of before."""
    extract(request.param, tmp_path / "before")
    made = new_site(tmp_path / "now", monkeypatch)
    workspace = Workspace(tmp_path / "before/workspace")
    made.sim = SimHost(Prefix.at(tmp_path / "host"), workspace, workspace.dist / "toy-1.0.0")
    made.sim.prefix.create()
    (made.sim.prefix.root / "uv").symlink_to(find_uv_bin())
    return made


def test_bundle_of_before_installs_and_one_of_this_version_replaces_it(site: Site) -> None:
    contents = site.sim.verify().value.contents
    assert (contents.format, contents.version) == (1, "1.0.0")
    done = site.install()
    assert (done.release.contents.version, done.was_complete) == ("1.0.0", False)
    check_release(open_current(site.sim.prefix, NOW))
    assert site.install().was_complete is True
    again = site.install(build_bundle(site.sim.workspace, "1.1.0", "two"))
    assert again.release.contents.version == "1.1.0"
    check_release(open_current(site.sim.prefix, NOW))
    status = json.loads((site.sim.prefix.current / "RELEASE.json").read_bytes())
    assert status["version"] == "1.1.0"
    assert site.sim.prefix.opt.joinpath("previous").readlink().name.startswith("1.0.0-")


def test_archives_are_there_and_small() -> None:
    assert ARCHIVES
    assert [path.name for path in ARCHIVES if path.stat().st_size > MAX_BYTES] == []
