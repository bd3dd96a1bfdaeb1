"""What a build begins early: it hashes what the lock names, and decides nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from appliance.builder.assembly import ahead
from appliance.builder.assembly.ahead import begun_ahead
from appliance.builder.cache.content_store import Cache
from appliance.builder.lock.lockfile import Pin
from bundles.progress import OnProgress, Progress
from signing.digest import sha256

PATH = os.environ.get("PATH", os.defpath)


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Pin]:
    """Files of a lock, the largest first; the cache has them."""
    cache, found = Cache(tmp_path / "cache"), []
    for size in (3000, 200, 10):
        data = bytes([size % 256]) * size
        path = tmp_path / "new"
        path.write_bytes(data)
        cache.adopt(path, sha256(data))
        found.append(Pin(f"file {size}", size, sha256(data)))
    monkeypatch.setattr(ahead, "read_lock", lambda _path: None)
    monkeypatch.setattr(ahead, "pins_to_check", lambda _lock: found)
    return found


def wait_for(condition: list[Pin] | list[Path | None]) -> None:
    end = time.monotonic() + 30
    while not condition and time.monotonic() < end:
        time.sleep(0.001)


def test_files_of_the_cache_are_hashed_and_a_damaged_one_is_removed(
    tmp_path: Path, pins: list[Pin], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, last = Cache(tmp_path / "cache"), list[Path | None]()
    cached = vars(ahead)["cached"]

    def note(pin: Pin, cache: Cache, on_progress: OnProgress) -> None:
        found = cached(pin, cache, on_progress)
        if pin == pins[-1]:
            last.append(found)

    monkeypatch.setattr(ahead, "cached", note)
    damaged = cache.path(pins[0].sha256)
    damaged.write_bytes(bytes(pins[0].size))
    with begun_ahead(tmp_path / "r.yaml", cache, PATH):
        wait_for(last)
    assert cache.checked == {pin.sha256 for pin in pins[1:]}
    assert not damaged.exists()


def test_nothing_is_hashed_after_the_block(tmp_path: Path, pins: list[Pin], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Pin]()

    def never_ends(pin: Pin, _cache: Cache, on_progress: OnProgress) -> None:
        asked.append(pin)
        while True:
            on_progress(Progress("", 0, 0))

    monkeypatch.setattr(ahead, "cached", never_ends)
    with begun_ahead(tmp_path / "r.yaml", Cache(tmp_path / "cache"), PATH):
        wait_for(asked)
    assert asked == pins[:1]


def test_missing_lock_and_compiler_are_left_to_the_build(tmp_path: Path) -> None:
    with begun_ahead(tmp_path / "none.yaml", Cache(tmp_path / "cache"), str(tmp_path)):
        pass
    assert not (tmp_path / "cache").exists()
