"""The download cache keeps only finished files, and waits for those who write."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from appliance.builder.cache.content_store import Cache, cache_root, home_folder
from signing.digest import sha256
from signing.errors import ApplianceError, UsageError


def _adopt(cache: Cache, data: bytes) -> Path:
    digest = sha256(data)
    with cache.claim(digest) as partial:
        partial.write_bytes(data)
        return cache.adopt(partial, digest)


def test_finished_file_lies_under_its_own_digest(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    digest = sha256(b"weights")
    path = _adopt(cache, b"weights")
    assert path == tmp_path / "cache" / "sha256" / digest[:2] / digest
    assert path.read_bytes() == b"weights"
    assert cache.has(digest, 7)
    assert not cache.has(digest, 8)
    assert list((tmp_path / "cache" / "partial").iterdir()) == []


def test_strict_umask_does_not_hide_the_cache_from_other_users(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        path = _adopt(Cache(tmp_path / "cache"), b"weights")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, path.parent.parent)} == {0o755}


def test_half_written_file_is_not_in_the_cache_and_is_found_by_the_next_run(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    digest = sha256(b"weights")
    with cache.claim(digest) as partial:
        partial.write_bytes(b"weig")
    assert not cache.has(digest, 7)
    with Cache(tmp_path).claim(digest) as partial:
        assert partial.read_bytes() == b"weig"


def test_link_in_place_of_a_file_is_not_taken_for_it(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    path = _adopt(cache, b"weights")
    (tmp_path / "elsewhere").write_bytes(b"weights")
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert not cache.has(sha256(b"weights"), 7)


def test_second_claim_of_a_file_waits_until_the_first_has_finished(tmp_path: Path) -> None:
    cache, digest = Cache(tmp_path), sha256(b"weights")
    seen: list[bool] = []

    def second() -> None:
        with Cache(tmp_path).claim(digest) as partial:
            # The file it waited for has gone into the cache: it must hold a new one, not that.
            seen.append(cache.has(digest, 7) and partial.read_bytes() == b"")

    with cache.claim(digest) as partial:
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        assert seen == []
        partial.write_bytes(b"weights")
        cache.adopt(partial, digest)
    thread.join(10)
    assert seen == [True]


def test_claim_that_ends_after_its_file_was_adopted_leaves_the_next_claim_alone(tmp_path: Path) -> None:
    began, may_end, others = threading.Event(), threading.Event(), list[str]()

    def claim(name: str) -> None:
        with Cache(tmp_path).claim("x"):
            others.append(name)
            began.set()
            may_end.wait(10)

    threads = [threading.Thread(target=claim, args=(name,)) for name in ("second", "third")]
    with Cache(tmp_path).claim("x") as partial:
        partial.write_bytes(b"weights")
        Cache(tmp_path).adopt(partial, sha256(b"weights"))
        threads[0].start()
        assert began.wait(10)  # it holds a new file of that name while this claim ends
    threads[1].start()
    time.sleep(0.1)
    before = list(others)
    may_end.set()
    for thread in threads:
        thread.join(10)
    assert (before, others) == (["second"], ["second", "third"])


def test_claim_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom appliance.builder.cache.content_store import Cache\n"
        "with Cache(Path(sys.argv[1])).claim('x') as partial:\n"
        "    partial.write_bytes(b'weig')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    with Cache(tmp_path).claim("x") as partial:
        assert partial.read_bytes() == b"weig"


def test_cache_folder_follows_the_environment() -> None:
    assert cache_root({"AIRGAP_APPLIANCE_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}) == Path("/a")
    assert cache_root({"XDG_CACHE_HOME": "/b", "HOME": "/c"}) == Path("/b/airgap-appliance")
    assert cache_root({"XDG_CACHE_HOME": "relative", "HOME": "/c"}) == Path("/c/.cache/airgap-appliance")
    assert cache_root({"AIRGAP_APPLIANCE_CACHE": "here"}).is_absolute()


def test_error_for_a_user_without_a_home_names_the_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    known = cache_root({"HOME": ""})
    assert known == Path(pwd.getpwuid(os.getuid()).pw_dir) / ".cache/airgap-appliance"
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    for env in ({}, {"HOME": ""}):
        assert home_folder(env) is None
        with pytest.raises(UsageError) as caught:
            cache_root(env)
        assert (caught.value.code, "AIRGAP_APPLIANCE_CACHE" in caught.value.hint) == ("cache.nowhere", True)


def test_cache_that_cannot_be_made_names_the_variable_that_moves_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ApplianceError) as caught:
        Cache(tmp_path / "file" / "cache").folder("runtime")
    assert (caught.value.code, caught.value.exit_code) == ("cache.unwritable", 1)
    assert "AIRGAP_APPLIANCE_CACHE" in caught.value.hint
