"""What an engine prints, without the texts of users.

An engine prints requests, grammars and answers when something is wrong with them, and a program that aborts prints what
it last had in hand. So its output goes through this list of what may be shown (threat T78). As a program it reads
standard input and writes what may be shown: the engine's unit starts it so, with no other part of the appliance.

Rules:
- a line is shown where all of it has a known form, and dropped otherwise: nothing is searched for and cut out;
- the loader's reasons are free text about the signed model. They are shown until the first line of another kind: a
  text of a user cannot stand before that;
- the place of a failed assertion is shown, and not the values;
- how many lines were dropped is shown at the end.

The same program ends the engine of a model that is loaded on demand, when its mark has gone. It also ends a silent
engine where the gateway asks for that (`appliance.host.engine.end_request`). It runs as the same user, in the same
unit, so nobody else needs a right to do that.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator

MAX_LINE_BYTES = 8 << 10
"""What is longer is dropped to its end."""
UNLOADING = signal.SIGUSR1
"""By this signal the engine is ended whose model is unloaded: no crash, and no decision of a person."""
POLL_S = 0.25
_READ_BYTES = 64 << 10
_HEAD = r"(?:[0-9.]{1,20} [EWI] )?"
_LOADER = re.compile(
    _HEAD + r"(?:(?:llama_(?!grammar)\w+|gguf_\w+|ggml_\w+|load\w*|print_info|cmn +common_init\w*|srv +load_model"
    r"|srv +llama_server)|E error loading model): [\x20-\x7e]{1,400}"
)
_ASSERTION = re.compile(r"(?:[\w./+-]{0,200}/)?([\w.+-]{1,60}\.(?:c|cc|cpp|h|hpp|cu|cuh|m):[0-9]{1,6}): .{0,8000}")
_FIXED = re.compile(
    r"terminate called after throwing an instance of '[\w:]{1,60}'|terminate called without an active exception"
    r"|Segmentation fault|Killed|Illegal instruction|(?:std::)?bad_alloc"
)


class LogFilter:
    """Decides line by line what is shown. `dropped` counts the others."""

    def __init__(self) -> None:
        self.is_loading = True
        self.dropped = 0

    def show(self, line: str) -> str | None:
        """What is shown of a line; None for nothing.

        Args:
            line: untrusted, without its end.
        """
        if self.is_loading and _LOADER.fullmatch(line):
            return line
        self.is_loading = False
        found = _ASSERTION.fullmatch(line)
        if found is not None:
            return f"{found[1]}: an assertion failed, or the program ended itself"
        if _FIXED.fullmatch(line):
            return line
        self.dropped += bool(line.strip())
        return None


def read_lines(descriptor: int) -> Iterator[str]:
    """The lines of a pipe, until its last writer has ended. Of a line that is too long, the beginning.

    Args:
        descriptor: of the pipe.
    """
    rest, is_too_long = b"", False
    while data := os.read(descriptor, _READ_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if not is_too_long:
                yield line[:MAX_LINE_BYTES].decode("utf-8", "replace").rstrip("\r")
            is_too_long = False
        if len(rest) > MAX_LINE_BYTES:
            if not is_too_long:
                yield rest[:MAX_LINE_BYTES].decode("utf-8", "replace")
            rest, is_too_long = b"", True
    if rest and not is_too_long:
        yield rest.decode("utf-8", "replace")


def copy_lines(source: int, target: int, show: Callable[[str], str | None]) -> None:
    """Copy what may be shown, until the source ends. A target that takes nothing never stops the source.

    Args:
        source: a pipe.
        target: a file, pipe or terminal.
        show: as `LogFilter.show`.
    """
    for line in read_lines(source):
        text = show(line)
        if text is not None:
            with contextlib.suppress(OSError):
                os.write(target, text.encode("utf-8", "replace") + b"\n")


def format_dropped(count: int) -> str:
    """The last line of a log: how many lines of an engine are not in it."""
    return f"{count} lines of the engine are not shown: they may hold texts of users"


def end_without_mark(mark: str, engine: int, poll_s: float = POLL_S) -> None:
    """End an engine when its mark has gone, once that was there. Returns where the engine has ended.

    Args:
        mark: path of the file (`appliance.host.engine.load_mark`).
        engine: process of the engine, the parent of this one.
        poll_s: seconds between two looks.
    """
    was_there = False
    while os.getppid() == engine:
        try:
            is_there = stat.S_ISREG(os.lstat(mark).st_mode)
        except OSError:
            is_there = False
        if was_there and not is_there:
            with contextlib.suppress(ProcessLookupError):
                os.kill(engine, UNLOADING)
            return
        was_there = is_there
        time.sleep(poll_s)


def end_on_request(listening: socket.socket, end: Callable[[], None]) -> None:
    """Call `end` for each connection, until the socket is closed. Nothing is read from a connection."""
    while True:
        try:
            listening.accept()[0].close()
        except OSError:
            return
        end()


def _end_parent(engine: int) -> None:
    # A process whose parent has ended gets another one.
    if os.getppid() == engine:
        with contextlib.suppress(OSError):
            os.kill(engine, signal.SIGKILL)


def main() -> None:
    """Entry point of the program beside an engine, with which it ends.

    Its arguments are the engine's mark, empty for none, and a descriptor that listens for requests to end the engine.
    """
    engine = os.getppid()
    if sys.argv[1:] and sys.argv[1]:
        threading.Thread(target=end_without_mark, args=(sys.argv[1], engine), daemon=True).start()
    if sys.argv[2:]:
        listening = socket.socket(fileno=int(sys.argv[2]))
        threading.Thread(target=end_on_request, args=(listening, lambda: _end_parent(engine)), daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    lines = LogFilter()
    copy_lines(0, 2, lines.show)
    if lines.dropped:
        with contextlib.suppress(OSError):
            os.write(2, format_dropped(lines.dropped).encode() + b"\n")


if __name__ == "__main__":
    main()
