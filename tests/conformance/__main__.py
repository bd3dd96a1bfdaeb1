"""The command line of the public TUF client conformance protocol, over our own verifier.

    client --metadata-dir D init ROOT
    client --metadata-dir D --metadata-url U refresh
    client --metadata-dir D --metadata-url U --target-name T… --target-base-url B --target-dir O download

`--target-name` may be repeated: the targets are fetched in that order, up to the first that fails.
Exit code 0 where it succeeded, 1 where any part failed. `D` then holds the metadata that was accepted, under names
without versions. The clock is the machine's, so that the suite may put `faketime` before it. What plain TUF allows and
the product does not is in `rules.py`; delegations are refused here, too. `client.xfails` lists the tests of the public
suite that fail for these reasons. Run in it:
`pytest tuf_conformance --entrypoint …/tests/conformance/client`, with `faketime`.
"""

from __future__ import annotations

import argparse
import http.client
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from signing.errors import ApplianceError
from tests.conformance.store import Store
from tests.conformance.updater import download, refresh


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="client")
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-base-url")
    parser.add_argument("--target-dir", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    asked = parse(argv)
    store = Store(asked.metadata_dir)
    now = datetime.now(timezone.utc)  # 5.1: one time for the whole update
    try:
        if asked.command == "init":
            store.keep("root", asked.root.read_bytes())
            return 0
        refresh(store, asked.metadata_url, now)
        if asked.command == "download":
            for name in asked.target_name:
                print(download(store, name, asked.target_base_url, asked.target_dir, now))
    except (ApplianceError, OSError, http.client.HTTPException) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
