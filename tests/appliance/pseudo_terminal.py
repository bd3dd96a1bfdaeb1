"""What a child process writes to a pseudo-terminal."""

from __future__ import annotations

import os


def read_all(leader: int) -> bytes:
    """Everything that is shown until the last process has closed its end; closes the leader."""
    shown = b""
    while True:
        try:
            block = os.read(leader, 65536)
        except OSError:
            break
        if not block:
            break
        shown += block
    os.close(leader)
    return shown
