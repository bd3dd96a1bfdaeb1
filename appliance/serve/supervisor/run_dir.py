"""The files of `appliance serve`: its lock, the folder of its sockets, the record of what it serves, its logs.

Owns those paths and their modes. Rules:
- one `serve` at a time for each host;
- sockets lie in a private folder on a short path, since a socket's address holds 107 bytes; the folder is recorded in
  `serve.json`, so that the next start removes what a kill left behind.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from appliance import filelock
from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.prefix import Prefix, make_folder
from signing.errors import BusyError

RECORD_FILE, LOCK_FILE = "serve.json", "serve.lock"
_SOCKETS = "appliance-sockets-"
_MAX_LOG_BYTES = 1 << 20


@contextmanager
def hold(prefix: Prefix) -> Iterator[None]:
    """Hold the right to serve from a host for the length of the block.

    Raises:
        BusyError: another process serves from it.
    """
    make_folder(prefix.run_dir)
    with filelock.hold(prefix.run_dir / LOCK_FILE, lambda _: _busy(prefix)):
        yield


def _busy(prefix: Prefix) -> BusyError:
    record = read_record(prefix)
    where = record.get("url", "an address that is not known yet")
    return BusyError(
        "serve.busy",
        str(prefix.root),
        expected="a host that serves nothing yet",
        found=f"process {record.get('pid', 'unknown')} serving at {where}",
        hint=f"use what it serves, or end it: kill {record.get('pid', 'PID')}",
    )


@contextmanager
def sockets(prefix: Prefix) -> Iterator[Path]:
    """A private folder for sockets, removed after the block. The caller holds the lock.

    Args:
        prefix: where the folder is recorded.
    """
    remove_sockets(Path(str(read_record(prefix).get("sockets", ""))))
    folder = make_sockets()
    write_record(prefix, {"sockets": str(folder), "pid": os.getpid()})
    try:
        yield folder
    finally:
        # After a switch another folder is recorded.
        for used in (folder, Path(str(read_record(prefix).get("sockets", "")))):
            remove_sockets(used)
        (prefix.run_dir / RECORD_FILE).unlink(missing_ok=True)


def make_sockets() -> Path:
    """Make a private folder for the sockets of one release's engines."""
    return Path(tempfile.mkdtemp(prefix=_SOCKETS))


def read_record(prefix: Prefix) -> dict[str, Any]:
    """Read what the process that serves has recorded; empty where none has. It is true only while the lock is held."""
    try:
        value = json.loads((prefix.run_dir / RECORD_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_serving(prefix: Prefix) -> dict[str, Any] | None:
    """Read what serves from this host now: what `serve` printed, `sockets` and `pid`; None where nothing does."""
    try:
        descriptor = os.open(prefix.run_dir / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return read_record(prefix)
    finally:
        os.close(descriptor)
    return None


def write_record(prefix: Prefix, record: dict[str, Any]) -> None:
    """Record what serves, for other processes."""
    write_file(prefix.run_dir / RECORD_FILE, json.dumps(record, indent=2).encode() + b"\n", 0o600)


def log_file(prefix: Prefix, name: str) -> Path:
    """The log of one child. One that is longer than 1 MiB is renamed to `.log.1` first."""
    path = prefix.logs / f"{name}.log"
    make_folder(path.parent, 0o700)
    if path.is_file() and path.stat().st_size > _MAX_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path


def engine_log(prefix: Prefix, model: str) -> Path:
    """Where the log of a model's engine lies. Nothing is made or renamed."""
    return prefix.logs / f"{engine_name(model)}.log"


def engine_name(model: str) -> str:
    """The name by which a model's engine has its log."""
    return f"engine-{model}"


def remove_sockets(folder: Path) -> None:
    """Remove a folder for sockets. The name may come from a file: only one that looks like ours is taken away."""
    if folder.is_absolute() and folder.name.startswith(_SOCKETS) and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
