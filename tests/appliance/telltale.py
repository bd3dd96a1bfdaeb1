"""A toy bundle with one line in it that tells of whoever built it: `python -m tests.appliance.telltale FOLDER LEAK…`.

What a build would leak if it were careless, so that a comparison of two builds can be seen to notice.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

from appliance.builder.assembly import packing
from appliance.builder.chunking.chunker import Source
from signing.digest import Digest
from tests.appliance.tiny import TinyBuild

NOTE = "playbooks/note.yml"
LEAKS = ("nothing", "mtime", "environment", "folder", "time", "user", "permissions")


def build(folder: Path, leak: str) -> Digest:
    """Build the toy in a folder of that name, and return the digest of its manifest."""
    program = Path(packing.__file__)
    told = {
        "nothing": "nothing",
        "mtime": int(program.stat().st_mtime),
        "environment": os.environ.get("TZ", "none"),
        "folder": folder,
        "time": time.time_ns(),
        "user": os.geteuid(),
        "permissions": oct(program.stat().st_mode),
    }
    note = Source(NOTE, "playbook", data=f"---\n# {told[leak]}\n".encode())
    return TinyBuild(folder / leak, extra=[note], now=datetime.now(timezone.utc)).build().manifest


if __name__ == "__main__":
    for one in sys.argv[2:]:
        print(build(Path(sys.argv[1]), one))
