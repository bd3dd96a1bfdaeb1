"""Where the bed keeps what it built: the program's cache folder, outside the checkout.

Rules:

- A thing is named by the digest of everything that shapes it. Another recipe is another name; nothing is ever updated.
- It is built under another name and renamed when whole, so that what is there is complete.
- One process builds, others wait for it. What a killed build left is removed by the next one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from appliance.build.cache import Cache, cache_root
from signing.digest import sha256

Say = Callable[[str], None]
KEY_LENGTH = 16


def bed_folder(env: Mapping[str, str] = os.environ) -> Path:
    """The bed's folder in the cache."""
    return Cache(cache_root(env)).folder("bed")


def key_of(*parts: str) -> str:
    """The short name of a thing, by everything that shapes it."""
    return sha256("\0".join(parts).encode())[:KEY_LENGTH]


def built(name: str, make: Callable[[Path], None], say: Say, about: str) -> Path:
    """The thing called `name`, made when it is not there.

    Args:
        name: with its key, such as `debian-12-0123456789abcdef`.
        make: writes the thing to the path given, which does not exist.
        say: told what is done and how long it took; silent when the thing is there.
        about: what it is and what it costs, for `say`.
    """
    folder = bed_folder()
    done = folder / name
    if done.exists():
        return done
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return done
        unfinished = folder / f"{name}.unfinished"
        remove(unfinished)
        say(f"bed: building {about}")
        started = time.monotonic()
        make(unfinished)
        unfinished.rename(done)
        (folder / f"{name}.lock").unlink()
    say(f"bed: {name} took {time.monotonic() - started:.0f} s")
    return done


def remove(path: Path) -> None:
    """Remove a file or a tree, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
