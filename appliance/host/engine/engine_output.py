"""The output of an engine that this process started: a pipe, and a thread that writes what may be shown to its log.

Rules:
- until users can reach the engine, everything is shown: it is about the signed model and this machine;
- from then on `appliance.host.engine.engine_log` decides;
- the pipe is read to its end whatever happens to the log: an engine that cannot print would stand still.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from threading import Thread

from appliance.host.engine.engine_log import LogFilter, copy_lines, format_dropped

END_S = 2.0


class EngineOutput:
    """A log, and the pipe whose lines are added to it.

    Args:
        log: the file; created with mode 0600.
    """

    def __init__(self, log: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._log = os.open(log, flags, 0o600)
        self._source, self.pipe = os.pipe2(os.O_CLOEXEC)
        self._lines = LogFilter()
        self._is_private = True
        self._thread = Thread(target=self._copy, name=f"log {log.name}", daemon=True)

    def start(self) -> None:
        """Begin to copy, once the engine has the pipe. This process keeps no end of it to write to."""
        os.close(self.pipe)
        self._thread.start()

    def open_to_users(self) -> None:
        """From now on a line may hold a text of a user."""
        self._is_private = self._lines.is_loading = False

    def wait(self) -> None:
        """Wait until all of an engine that has ended is in the log, for `END_S` at most."""
        self._thread.join(END_S)

    def _copy(self) -> None:
        copy_lines(self._source, self._log, self._show)
        if self._lines.dropped:
            with contextlib.suppress(OSError):
                os.write(self._log, format_dropped(self._lines.dropped).encode() + b"\n")
        os.close(self._source)
        os.close(self._log)

    def _show(self, line: str) -> str | None:
        return line if self._is_private else self._lines.show(line)
