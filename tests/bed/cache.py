"""Where the bed keeps what it built: the program's cache folder, outside the checkout.

Rules:

- A thing is named by the digest of everything that shapes it, and appears whole or not at all
  (`appliance.builder.cache.built_entries`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from appliance.builder.cache.built_entries import build_once, key_of, remove
from appliance.builder.cache.content_store import Cache, cache_root
from appliance.builder.debian.rootfs import FOLDER

__all__ = ["Say", "bed_folder", "built", "key_of", "remove", "timed"]

Say = Callable[[str], None]


def bed_folder(env: Mapping[str, str] = os.environ) -> Path:
    """The bed's folder in the cache."""
    return Cache(cache_root(env)).folder(FOLDER)


def built(name: str, make: Callable[[Path], None], say: Say, about: str) -> Path:
    """The thing called `name`, made when it is not there.

    Args:
        name: with its key, such as `debian-12-0123456789abcdef`.
        make: writes the thing to the path given, which does not exist.
        say: told what is done and how long it took; silent when the thing is there.
        about: what it is and what it costs, for `say`.
    """
    with timed(name, say, about) as on_start:

        def make_it(path: Path) -> None:
            on_start()
            make(path)

        return build_once(bed_folder(), name, make_it)


@contextmanager
def timed(name: str, say: Say, about: str) -> Iterator[Callable[[], None]]:
    """Tell when something is begun, and how long it took; silent where it is not begun.

    Yields:
        To be called when it begins; again is no matter.
    """
    started: list[float] = []

    def on_start() -> None:
        if not started:
            started.append(time.monotonic())
            say(f"bed: building {about}")

    yield on_start
    if started:
        say(f"bed: {name} took {time.monotonic() - started[0]:.0f} s")
