"""The reference TUF client reads our repository: the format is TUF's, not only ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from bundles.layout import target_name
from tests.toy import build_toy


class FolderFetcher(FetcherInterface):
    """Serves `http://x/<path>` from a folder, without a network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self.folder / url.removeprefix("http://x/")
        if not path.is_file():
            raise DownloadHTTPError("not found", 404)
        yield path.read_bytes()


@pytest.mark.parametrize("where", ["bundle", "repository"])
def test_reference_client_fetches_the_manifest_as_a_target(tmp_path: Path, where: str) -> None:
    workspace, bundle = build_toy(tmp_path / "workspace", "1.0.0")
    workspace, bundle = build_toy(tmp_path / "workspace", "1.1.0", note="newer")
    folder = bundle if where == "bundle" else workspace.repository.root
    (tmp_path / "client").mkdir()
    (tmp_path / "downloads").mkdir()
    updater = Updater(
        str(tmp_path / "client"),
        "http://x/metadata/",
        str(tmp_path / "downloads"),
        "http://x/targets/",
        fetcher=FolderFetcher(folder),
        bootstrap=workspace.root_file.read_bytes(),
    )
    updater.refresh()
    info = updater.get_targetinfo(target_name("toy", "1.1.0"))
    assert info is not None
    assert info.unrecognized_fields["custom"]["status"] == "current"
    manifest = Path(updater.download_target(info)).read_bytes()
    assert manifest == next((bundle / "targets").rglob("*.manifest.json")).read_bytes()
