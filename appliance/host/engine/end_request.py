"""How the gateway has a silent engine ended: it connects to a second socket beside the engine's own.

Owns the socket's place and the connection. Under `appliance serve`, the engine keeper listens there. In an engine's
unit, that is the program that filters its log. Each of them ends the engine, which is then started again, verified
anew, and counted as a crash (`appliance.host.engine.crashes`).

Rules:
- a connection is the whole request: nothing is read from it, so nothing can be sent by it;
- only who may connect to the engine may connect here. It could keep the engine busy as well;
- an engine that has ended itself leaves nobody to connect to.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from appliance.host.engine.engine_log import end_on_request

CONNECT_S = 2.0


def end_path(engine: Path) -> Path:
    """The path of the socket for such requests.

    Args:
        engine: the path of the socket that the engine listens on.
    """
    return engine.with_suffix(".end")


def request_end(engine: Path) -> bool:
    """Have an engine ended.

    Args:
        engine: the path of the socket that it listens on.

    Returns:
        False where nobody takes the request.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(CONNECT_S)
            connection.connect(str(end_path(engine)))
    except OSError:
        return False
    return True


def listen(engine: Path) -> socket.socket:
    """Listen for requests to end an engine, in the place of who listened before.

    Raises:
        OSError: the socket cannot be made.
    """
    path = end_path(engine)
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listening.bind(str(path))
        listening.listen(1)
    except OSError:
        listening.close()
        raise
    return listening


class EndListener:
    """Ends an engine that this process keeps, where the gateway asks for it. Safe to close twice.

    Args:
        engine: the path of the socket that it listens on.
        end: ends it.
    """

    def __init__(self, engine: Path, end: Callable[[], None]) -> None:
        self._listening = listen(engine)
        Thread(target=end_on_request, args=(self._listening, end), name=f"end of {engine.stem}", daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
