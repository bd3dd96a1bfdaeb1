"""The format of the stored state of a host: databases, floors and records that outlive a release.

Owns the file `STATE` of a release, which a shell can read, and `state-format` of the host. Stored state only grows. A
release that writes a newer format names the formats that it reads. A release that does not read the host's format can
neither be installed nor be gone back to.

Rules (threat T123):
- a release may write a newer format only when `state-format` names it. Commit raises that number, nothing lowers it. So
  a release on trial can always be left again;
- a release without `STATE`, and contents without `state`, read and write format 1.
"""

from __future__ import annotations

import re
from pathlib import Path

from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.places import STATE_FILE
from appliance.host.layout.prefix import Prefix
from bundles.contents.contents import Contents
from bundles.contents.format_2 import StateFormats
from signing.errors import DriftError, HostUnfitError

FIRST = StateFormats((1,), 1)
_NUMBER = re.compile(rb"[1-9][0-9]{0,8}\n")


def state_formats(contents: Contents) -> StateFormats:
    """The formats that the program of a bundle reads and writes."""
    return contents.state or FIRST


def state_file(contents: Contents) -> bytes:
    """Format `STATE`: the numbers that a release reads, with colons between them, and the one that it writes."""
    formats = state_formats(contents)
    return f"reads={':'.join(map(str, formats.reads))}\nwrites={formats.writes}\n".encode()


def write_state_file(release: Path, contents: Contents) -> bool:
    """Write `STATE` into a release, durably.

    Args:
        release: its folder.
        contents: verified.

    Returns:
        False where it was there already.
    """
    return write_file(release / STATE_FILE, state_file(contents))


def read_state_format(prefix: Prefix) -> int:
    """Read the format of the stored state of a host: 1 where no install has written it.

    Raises:
        DriftError: the file holds something that no install writes.
    """
    try:
        data = prefix.state_format.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return 1
    except OSError as error:
        raise _changed(prefix, error.strerror or "") from None
    if not _NUMBER.fullmatch(data):
        raise _changed(prefix, repr(data[:40]))
    return int(data)


def raise_state_format(prefix: Prefix, contents: Contents) -> bool:
    """Record that the stored state may have the format that a release writes; called when the release is good.

    Args:
        prefix: the host.
        contents: of the release.

    Returns:
        False where the host had that format, or a newer one that the release reads, too.
    """
    number = max(read_state_format(prefix), state_formats(contents).writes)
    return write_file(prefix.state_format, f"{number}\n".encode())


def check_state_format(prefix: Prefix, contents: Contents) -> None:
    """Refuse a bundle whose program cannot read the stored state of this host.

    Args:
        prefix: the host.
        contents: verified.

    Raises:
        HostUnfitError: code `state.unread`.
        DriftError: as `read_state_format`.
    """
    found, reads = read_state_format(prefix), state_formats(contents).reads
    if found not in reads:
        raise HostUnfitError(
            "state.unread",
            f"{contents.name} {contents.version}",
            expected=f"stored state of format {' or '.join(map(str, reads))}",
            found=f"format {found}, which a later release has written here",
            hint="choose a release that reads it: the one that serves, or a later one",
        )


def _changed(prefix: Prefix, found: str) -> DriftError:
    return DriftError(
        "state.format",
        str(prefix.state_format),
        expected="one number, as an install wrote it",
        found=found,
        hint="run the same `appliance install` again",
    )
