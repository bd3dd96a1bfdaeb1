"""The trust state of a host on disk: the pinned root and the floors (threats T2, T40, T41).

Owns `trust/root.json` and `trust/floors.json` of a prefix. It never decides what is trusted: `signing` does.

Rules:
- floors only rise; they are written durably before the first byte of the bundle that raised them;
- a floors file that cannot be read, or holds what no walk proves, is a refusal, never "no floors yet".
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.prefix import Prefix
from signing.errors import DamagedError, NotTrustedError
from signing.floors import Floors, parse_floors
from signing.strictjson import to_file

MAX_ROOT_BYTES = 256 << 10


def read_floors(prefix: Prefix) -> Floors:
    """Read the floors of this host; zeros where nothing was ever accepted.

    Raises:
        DamagedError: the file differs from what this host wrote, or is missing although a release is installed.
    """
    path = prefix.trust / "floors.json"
    try:
        floors = parse_floors(path.read_bytes(), str(path))
    except FileNotFoundError:
        if os.path.lexists(prefix.current):
            # A host with a release has accepted something: without its floors an old bundle could pass as new (T41).
            raise _damaged(path, "no file") from None
        return Floors()
    except PermissionError:
        raise
    except OSError as error:
        raise _damaged(path, error.strerror or "") from None
    except NotTrustedError as error:
        raise _damaged(path, error.found) from None
    if not floors.time:  # every publication states a time, so a host has never accepted anything without one
        raise _damaged(path, "no time")
    return floors


def write_floors(prefix: Prefix, floors: Floors) -> bool:
    """Raise the floors of this host, durably.

    Returns:
        False when they were as high already.
    """
    raised = read_floors(prefix).raised(floors)
    return write_file(prefix.trust / "floors.json", to_file(asdict(raised)))


def read_root(prefix: Prefix) -> bytes | None:
    """Read the root that this host has pinned, or None.

    Raises:
        DamagedError: its path belongs to something else than a file, or the disk cannot read it.
    """
    path = prefix.trust / "root.json"
    try:
        return read_root_file(path)
    except FileNotFoundError:
        return None
    except PermissionError:
        raise
    except OSError as error:
        raise DamagedError(
            "root.unreadable",
            str(path),
            expected="the root that was pinned on this host",
            found=error.strerror or "",
            hint=f"move it away; then pin the root again: appliance trust pin ROOT --fingerprint SHA256{prefix.option}",
        ) from None


def read_root_file(path: Path) -> bytes:
    """Read the bytes of a root file that a person chose to trust.

    Raises:
        FileNotFoundError: there is none.
        NotTrustedError: the file is longer than a root file may be.
    """
    with path.open("rb") as file:
        data = file.read(MAX_ROOT_BYTES + 1)
    if len(data) > MAX_ROOT_BYTES:
        raise NotTrustedError("root.too-long", str(path), expected=f"at most {MAX_ROOT_BYTES} bytes", found="more")
    return data


def write_root(prefix: Prefix, root: bytes) -> bool:
    """Pin a root on this host, durably.

    Args:
        prefix: its folders exist.
        root: checked by the caller: chosen by the operator, or a successor that the pinned root's threshold signed.

    Returns:
        False when it was pinned already.
    """
    return write_file(prefix.trust / "root.json", root)


def _damaged(path: Path, found: str) -> DamagedError:
    return DamagedError(
        "floors.damaged",
        str(path),
        expected="the floors that this host wrote",
        found=found,
        hint="restore this file from a backup; without it an old bundle could pass as new",
    )
