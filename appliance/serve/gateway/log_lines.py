"""The gateway's log, without the texts of users (threat T78).

An exception carries what it failed on, and a traceback would print it. So the log has its type and the places in the
program. Of a message that a library composes around one, it has the first words.
"""

from __future__ import annotations

import logging
import re
import traceback
from pathlib import Path
from types import TracebackType

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


def configure() -> None:
    """Send warnings and errors of this process to standard error, in the place of what was configured before."""
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter(_FORMAT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(error.__traceback__))
