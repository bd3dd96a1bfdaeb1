"""The gateway's log, without the texts of users (threat T78).

An exception carries what it failed on, and a traceback would print it. So the log has its type and the places in the
program. Of a message that a library composes around one, it has the first words.

Below systemd a line goes to the journal with its level and its logger as fields; elsewhere to standard error.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import TextIO

from appliance.host.process.journal import IDENTIFIER, SOCKET, is_unit, send_entry

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class PlainFormatter(logging.Formatter):
    """Formats a record with types and places in the place of a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        shown = logging.makeLogRecord(record.__dict__)
        # asyncio writes what failed, and on what, behind the first words.
        text = record.getMessage().split("\n")[0]
        shown.msg, shown.args = re.split("[(<:]", text)[0] if record.name == "asyncio" else text, ()
        shown.exc_text = None
        return super().format(shown)

    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        """See `logging.Formatter`."""
        error, lines = ei[1], []
        while error is not None:
            places = [f"{Path(one.filename).name}:{one.lineno} {one.name}" for one in _frames(error)]
            lines.append(f"{type(error).__name__} at {', '.join(places) or 'nowhere'}")
            error = error.__cause__ or error.__context__
        return "\n".join(lines)


class JournalHandler(logging.StreamHandler[TextIO]):
    """Sends each line to the journal; one that it does not take, to a stream.

    Args:
        path: of the journal's socket.
        stream: for what it does not take.
    """

    def __init__(self, path: Path, stream: TextIO) -> None:
        super().__init__(stream)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        fields = {
            "MESSAGE": self.format(record),
            "PRIORITY": "3" if record.levelno >= logging.ERROR else "4",
            "SYSLOG_IDENTIFIER": IDENTIFIER,
            "APPLIANCE_LOGGER": record.name,
        }
        if not send_entry(fields, self._path):
            super().emit(record)


def configure() -> None:
    """Send warnings and errors of this process to its log, in the place of what was configured before."""
    handler: logging.Handler
    if is_unit(os.environ, sys.stderr):
        # The journal has time, level and logger as fields.
        handler, form = JournalHandler(SOCKET, sys.stderr), "%(message)s"
    else:
        handler, form = logging.StreamHandler(), _FORMAT
    handler.setFormatter(PlainFormatter(form))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(error.__traceback__))
