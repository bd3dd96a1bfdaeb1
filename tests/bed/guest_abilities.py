"""What guests need of this machine. A test that needs one is skipped where there is none, and says why."""

from __future__ import annotations

from functools import cache

from tests.bed.abilities import BUILD_HINT, missing_commands, no_root
from tests.bed.guest_frozen import place as place_frozen
from tests.bed.guest_image import place as place_image
from tests.bed.guest_machine import QEMU, default_machine
from tests.bed.host import BedError

COMMANDS = ("mcopy", "mkfs.exfat", "mkfs.vfat", "qemu-img", QEMU, "setpriv", "zstd")


@cache
def no_guests() -> str | None:
    """Why this machine runs no guests, or None when it does."""
    if missing := missing_commands(COMMANDS):
        return f"needs {' '.join(missing)}: {BUILD_HINT}"
    try:
        frozen = place_frozen(place_image(), default_machine())
    except BedError as error:
        return f"needs QEMU: {error}"
    # Only root builds it; whoever finds it there may run it.
    return None if frozen.folder.is_dir() else no_root() or f"needs the guest: {BUILD_HINT}"
