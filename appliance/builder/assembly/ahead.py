"""Work that a build begins before most of this program is loaded.

Owns two threads. One hashes the files of the lock that the cache has; the other asks the compiler for its versions.
Both mostly leave the interpreter free, so that modules are loaded at the same time.

Rules:
- nothing is decided here: what is wrong is found again where the build asks for it, and is an error there;
- nothing is hashed after the block: the build hashes the rest on all cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from appliance.builder.cache.content_store import Cache
from appliance.builder.lock.lockfile import Lock, Pin, lock_path, read_lock
from appliance.builder.lock.pinned_fetch import cached
from appliance.builder.runtime.compilation.toolchain import known_compiler
from bundles.progress import Progress
from signing.errors import ApplianceError


@contextmanager
def begun_ahead(recipe: Path, cache: Cache, search_path: str) -> Iterator[None]:
    """Begin with a build of a recipe while the block runs.

    Args:
        recipe: its lock lies beside it; either may be missing or wrong.
        cache: of downloads; a damaged file is removed from it.
        search_path: to find the compiler.
    """
    is_over = Event()
    hashing = Thread(target=_hash, args=(lock_path(recipe), cache, is_over))
    asking = Thread(target=_ask, args=(search_path,))
    hashing.start()
    asking.start()
    try:
        yield
    finally:
        is_over.set()
        hashing.join()
        asking.join()


def pins_to_check(lock: Lock) -> list[Pin]:
    """The files of a lock that a build hashes before it uses any of them, the largest first."""
    pins = {entry.used for entry in lock.of_kind("build-tool", "file", "sdist", "tool", "wheel")}
    return sorted(pins, key=lambda pin: (-pin.size, pin.sha256))


class _IsOverError(Exception):
    """The block has ended."""


def _hash(lock: Path, cache: Cache, is_over: Event) -> None:
    def go_on(_progress: Progress) -> None:
        if is_over.is_set():
            raise _IsOverError

    with suppress(_IsOverError, ApplianceError, OSError):
        for pin in pins_to_check(read_lock(lock)):
            go_on(Progress("", 0, 0))
            cached(pin, cache, go_on)


def _ask(search_path: str) -> None:
    with suppress(ApplianceError, OSError):
        known_compiler(search_path)
