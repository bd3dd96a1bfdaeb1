"""Writes the files that a role of the playbooks rendered, all of them at once.

Command line: `python -m appliance.host.playbook.role_writer`, with an order on stdin.

Owns the checking and writing of rendered text. Ansible renders; this module parses each text as its reader will, and
writes it durably, which Ansible's own modules do not. One process does this for a whole role: on a slow machine each
start of a module takes seconds.

The order is a JSON object: `{"folders": [{"path", "mode"}], "files": [{"path", "mode", "content", "check", "keep"}]}`.
`mode` is octal text, and `check` is one of `CHECKS`. A file with `keep` is written only where none exists. The answer
on stdout is a JSON list of the paths that were changed.

Rules:
- everything is checked before anything is written;
- nothing is written through a symbolic link, and only the ordered folders are made.

Exit codes: 0 for success, 1 with the reason on stderr.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from appliance.host.layout.atomic_file import write_file
from appliance.host.site.config import parse_site
from signing.errors import ApplianceError


def write_rendered(order: Mapping[str, Any]) -> list[str]:
    """Make the folders and write the files that differ.

    Args:
        order: from the role, as described above; its paths are absolute.

    Returns:
        The paths that were made or changed.

    Raises:
        ValueError: a text fails its check; nothing was written.
        OSError: a file cannot be written.
    """
    files = [file for file in order.get("files", ()) if not (file.get("keep") and os.path.lexists(file["path"]))]
    for file in files:
        try:
            CHECKS[file.get("check", "none")](file["content"])
        except (ValueError, ApplianceError) as error:
            raise ValueError(f"{file['path']}: {error}") from None
    changed = [folder["path"] for folder in order.get("folders", ()) if _make(Path(folder["path"]), folder["mode"])]
    for file in files:
        if write_file(Path(file["path"]), file["content"].encode(), int(file["mode"], 8)):
            changed.append(file["path"])
    return changed


def _make(path: Path, mode: str) -> bool:
    wanted, is_new = int(mode, 8), not os.path.lexists(path)
    if is_new:
        path.mkdir(mode=0o700)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_mode & 0o7777 == wanted:
            return is_new
        os.fchmod(descriptor, wanted)
        return True
    finally:
        os.close(descriptor)


def _check_shell(text: str) -> None:
    done = subprocess.run(["/bin/sh", "-n"], check=False, input=text.encode(), capture_output=True)
    if done.returncode != 0:
        raise ValueError(done.stderr.decode("utf-8", "replace").strip())


CHECKS: Mapping[str, Callable[[str], object]] = {
    "json": json.loads,
    "none": str,
    "shell": _check_shell,
    "site": lambda text: parse_site(text.encode()),
}
"""The checks of a text before it is written, by the name that a role gives."""


def main() -> int:
    """Read the order from stdin, write the files, and print the changed paths; returns the exit code."""
    try:
        changed = write_rendered(json.load(sys.stdin))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(changed) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
