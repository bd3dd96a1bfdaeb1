"""The scrub below a prefix: a thread of `appliance serve`, which does what the timer does on a whole machine.

Owns when it begins. It must never delay the end of `appliance serve`. A scrub that is asked to end does so at the next
chunk, and begins anew another time.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from threading import Event, Thread

from appliance.events import OnEvent
from appliance.host.models.scrub import become_idle
from appliance.host.release.release import Release
from appliance.serve.supervisor.scrubbing import is_due, scrub_release
from bundles.progress import Progress

LOOK_S = 3600.0
"""How often the age of the last scrub is looked at; also the time from the start to the first look."""


class ScrubKeeper:
    """Scrubs the release that serves, whenever the last scrub is old enough.

    Args:
        find: gives the release that serves now.
        now: the clock, in UTC.
        on_event: gets the events of a scrub.
        look_s: seconds between two looks.
    """

    def __init__(
        self, find: Callable[[], Release], now: Callable[[], datetime], on_event: OnEvent, look_s: float = LOOK_S
    ) -> None:
        self._find, self._now, self._on_event, self._look_s = find, now, on_event, look_s
        self._stopping = Event()
        self._thread = Thread(target=self._work, name="scrub", daemon=True)

    def start(self) -> None:
        """Begin to look, in a thread that takes what others leave."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Safe to call twice, and before `start`."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        become_idle()
        while not self._stopping.wait(self._look_s):
            release = self._find()
            if not is_due(release.prefix, self._now()):
                continue
            try:
                names = [model.name for model in release.contents.models]
                scrub_release(release, names, self._now, self._on_event, self._continue)
            except _EndedError:
                return
            except OSError:
                continue  # the record could not be written; the engine was ended, and the next look tries again

    def _continue(self, _progress: Progress) -> None:
        if self._stopping.is_set():
            raise _EndedError


class _EndedError(Exception):
    """The scrub was asked to end."""
