"""The same protocol over python-tuf's client: what the tests here expect is TUF's, not only what we made of it."""

from __future__ import annotations

from collections.abc import Sequence

from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.ngclient import Updater

from tests.conformance.__main__ import parse


def main(argv: Sequence[str]) -> int:
    asked = parse(argv)
    if asked.command == "init":
        (asked.metadata_dir / "root.json").write_bytes(asked.root.read_bytes())
        return 0
    target_dir = asked.target_dir and str(asked.target_dir)
    try:
        updater = Updater(
            str(asked.metadata_dir), asked.metadata_url, target_dir, asked.target_base_url, bootstrap=None
        )
        updater.refresh()
        if asked.command == "download":
            for name in asked.target_name:
                info = updater.get_targetinfo(name)
                if info is None:
                    return 1
                updater.download_target(info)
    except (DownloadError, RepositoryError):
        return 1
    return 0
