"""The reference TUF client reads our repository: the format is TUF's, not only ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadHTTPError, UnsignedMetadataError
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from appliance.keys.publication import publish
from appliance.keys.rotation import Change, rotate
from appliance.keys.tuf_repository import read_newest
from bundles.oci.layout import target_name
from tests.sim.people import ROOT, TARGETS, finished
from tests.sim.tuf import keys
from tests.toy import NOW, build_toy


class FolderFetcher(FetcherInterface):
    """Serves `http://x/<path>` from a folder, without a network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self.folder / url.removeprefix("http://x/")
        if not path.is_file():
            raise DownloadHTTPError("not found", 404)
        yield path.read_bytes()


def client(folder: Path, tmp_path: Path, root: bytes) -> Updater:
    """The reference client, which pinned a root and reads a repository in a folder."""
    (tmp_path / "client").mkdir()
    (tmp_path / "downloads").mkdir()
    return Updater(
        str(tmp_path / "client"),
        "http://x/metadata/",
        str(tmp_path / "downloads"),
        "http://x/targets/",
        fetcher=FolderFetcher(folder),
        bootstrap=root,
    )


@pytest.mark.parametrize("where", ["bundle", "repository"])
def test_reference_client_fetches_the_manifest_as_a_target(tmp_path: Path, where: str) -> None:
    workspace, bundle = build_toy(tmp_path / "workspace", "1.0.0")
    workspace, bundle = build_toy(tmp_path / "workspace", "1.1.0", note="newer")
    folder = bundle if where == "bundle" else workspace.repository.root
    updater = client(folder, tmp_path, workspace.root_file.read_bytes())
    updater.refresh()
    info = updater.get_targetinfo(target_name("toy", "1.1.0"))
    assert info is not None
    assert info.unrecognized_fields["custom"]["status"] == "current"
    manifest = Path(updater.download_target(info)).read_bytes()
    assert manifest == next((bundle / "targets").rglob("*.manifest.json")).read_bytes()


def test_reference_client_follows_a_ceremony_and_a_rotation_of_every_key(tmp_path: Path) -> None:
    made = finished(tmp_path)
    pinned = made.workspace.root_file.read_bytes()
    publish(made.workspace, "toy", "1.0.0", b"{}", NOW)
    made.collect("targets-2", TARGETS[1:])
    root, targets = keys("next-root", 3), keys("next-targets", 3)
    change = Change(
        remove=tuple(one.public.fingerprint for one in (*ROOT, *TARGETS)),
        add_root=tuple(one.public for one in root),
        add_targets=tuple(one.public for one in targets),
        new_builder=True,
    )
    rotate(made.workspace, change, NOW)
    assert made.collect("root-2", (*ROOT[:2], *root[1:], *targets[:2])).is_complete
    publish(made.workspace, "toy", "1.1.0", b"[]", NOW)
    assert made.collect("targets-4", targets[1:]).is_complete
    updater = client(made.workspace.repository.root, tmp_path, pinned)
    updater.refresh()
    info = updater.get_targetinfo(target_name("toy", "1.1.0"))
    assert info is not None
    assert Path(updater.download_target(info)).read_bytes() == b"[]"


def test_reference_client_refuses_what_one_of_two_signed(tmp_path: Path) -> None:
    made = finished(tmp_path)
    publish(made.workspace, "toy", "1.0.0", b"{}", NOW)
    request = made.collect("targets-2", TARGETS[:1])
    for name, data in read_newest(made.workspace, request, NOW).items():
        made.workspace.repository.write(f"metadata/{name}", data)
    updater = client(made.workspace.repository.root, tmp_path, made.workspace.root_file.read_bytes())
    with pytest.raises(UnsignedMetadataError):
        updater.refresh()
