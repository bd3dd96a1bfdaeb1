"""From a line of the lock to verified bytes on this disk.

Owns where bytes are looked for (the cache, then the source), the comparison with the lock, and the extraction of a
model from a wheel. `fetch` never returns a file whose bytes this process has not hashed. `local_path` hashes nothing.

Rules:
- a file of the cache is hashed before its first use in a process; one with other bytes is removed and fetched again;
- bytes that differ from the lock are damaged, wherever they come from: nothing of them stays;
- a download that was continued and came out wrong is tried once more from its beginning: the old part may be wrong;
- a local file (`file:`) is used where it lies, never copied into the cache.
"""

from __future__ import annotations

import difflib
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from appliance.builder.cache.content_store import Cache, require_space
from appliance.builder.cache.partial_file import Partial
from appliance.builder.lock.lockfile import Locked, LockedMember, Pin
from appliance.builder.lock.model_parts import concatenate
from appliance.builder.sources import (
    FileSource,
    HfSource,
    HttpsSource,
    PypiSource,
    RecipeSource,
    file,
    hf,
    https,
    parse_source,
)
from appliance.builder.sources.download import Remote, download
from appliance.builder.sources.pypi import index_url, open_index
from bundles.contents.wheel_record import BROKEN_ZIP
from bundles.parallel import work_off
from bundles.progress import OnProgress, Progress, ignore
from signing.digest import READ_BYTES, Digest, sha256
from signing.errors import ApplianceError, DamagedError


def fetch(
    locked: Locked,
    cache: Cache,
    on_progress: OnProgress = ignore,
    *,
    recipe_folder: Path = Path(),
    env: Mapping[str, str] = os.environ,
) -> Path:
    """Fetch the file that an entry of the lock pins: for a model in a wheel, the model itself.

    Args:
        locked: the entry of the lock.
        cache: searched first; a downloaded file is put there.
        on_progress: called with bytes.
        recipe_folder: where relative `file:` sources start.
        env: the environment, for the package index and the hub.

    Returns:
        The path of a file whose bytes are those of `locked.used`.

    Raises:
        DamagedError: the source's bytes differ from the lock.
        ApplianceError: the source is unreachable, gone or refused; the disk is full.
        UsageError: a local file is missing.
    """
    source = parse_source(locked.source) if locked.source else None
    if isinstance(source, FileSource):
        return _use_local(locked, file.find(source, recipe_folder), on_progress)
    if path := cached(locked.used, cache, on_progress):
        return path
    path = _fetch_whole(locked, source, cache, on_progress, env)
    if locked.member is None:
        return path
    member = extract(path, locked.member.path, cache, on_progress, size_bytes=locked.member.size)
    if member != locked.member:
        cache.discard(member.sha256)
        raise _differs(locked.used, member.sha256, member.size)
    return cache.path(member.sha256)


def local_path(locked: Locked, cache: Cache, recipe_folder: Path) -> Path | None:
    """The path of a pinned file that is on this disk already, judged by its size; its bytes are not read.

    For callers that hash the bytes in one pass with other work, compare them with the lock, and discard what differs.

    Returns:
        None where no file of that size is there; then `fetch` is to be called.
    """
    source = parse_source(locked.source) if locked.source else None
    if isinstance(source, FileSource):
        path = file.find(source, recipe_folder)
        return path if path.stat().st_size == locked.size else None
    return cache.path(locked.used.sha256) if cache.has(locked.used.sha256, locked.used.size) else None


def fetch_concatenated(locked: Locked, parts: Sequence[Path], cache: Cache, on_progress: OnProgress = ignore) -> Path:
    """A model that was locked in parts: from the cache, or concatenated.

    Args:
        locked: the entry of the whole model.
        parts: verified, in the recipe's order.

    Raises:
        DamagedError: the whole differs from the lock.
        ApplianceError: the disk is full.
    """
    if path := cached(locked.used, cache, on_progress):
        return path
    digest, size = concatenate(locked.name, parts, cache, on_progress)
    if (digest, size) != (locked.sha256, locked.size):
        cache.discard(digest)
        raise _differs(locked.used, digest, size)
    return cache.path(digest)


def fetch_whole(
    locked: Locked, cache: Cache, on_progress: OnProgress = ignore, *, env: Mapping[str, str] = os.environ
) -> Path:
    """Fetch the file that an entry of the lock names, without extracting anything: the wheel around a model.

    Raises:
        As `fetch`.
    """
    return _fetch_whole(locked, parse_source(locked.source) if locked.source else None, cache, on_progress, env)


def fetch_unpinned(remote: Remote, cache: Cache, on_progress: OnProgress = ignore) -> Pin:
    """Fetch a file that no lock pins yet, and measure its size and digest.

    Args:
        remote: where it is; a digest that its server claims is checked, and lets a broken download be continued.
        cache: gets the file.
        on_progress: called with bytes.

    Raises:
        DamagedError: the bytes are not those that the server claims.
        ApplianceError: the source is unreachable, gone or refused; the disk is full.
    """
    with cache.claim(remote.sha256 or sha256(remote.url.encode())) as partial:
        if remote.sha256 is None:
            os.truncate(partial, 0)
        elif found := _pin_of_cached(remote.sha256, remote.subject, cache, on_progress):
            return found
        digest, size = download(remote, partial, on_progress)
        if (remote.sha256 not in (None, digest)) or (remote.size not in (None, size)):
            os.truncate(partial, 0)
            raise DamagedError(
                "source.differs-from-claim",
                remote.subject,
                expected=f"what its server claims: {_describe(remote.sha256, remote.size)}",
                found=_describe(digest, size),
                hint="try again; if that does not help, ask the operators of that server or of the proxy in between",
            )
        cache.adopt(partial, digest)
    return Pin(remote.subject, size, digest)


def cached(pin: Pin, cache: Cache, on_progress: OnProgress = ignore) -> Path | None:
    """The file of the cache with these bytes, hashed once per process; None where it is absent or was damaged."""
    if not cache.has(pin.sha256, pin.size):
        return None
    path = cache.path(pin.sha256)
    if pin.sha256 not in cache.checked:
        try:
            digest, _ = file.measure(path, on_progress)
        except FileNotFoundError:  # another process has just found it damaged and removed it
            return None
        if digest != pin.sha256:
            cache.discard(pin.sha256)
            return None
        cache.checked.add(pin.sha256)
    return path


def check_cached(pins: Iterable[Pin], cache: Cache) -> None:
    """Hash those of these files that the cache has, on all cores; damaged ones are removed, as by `cached`."""
    work_off(sorted(set(pins), key=lambda pin: -pin.size), lambda pin: cached(pin, cache))


def extract(
    wheel: Path, member: str, cache: Cache, on_progress: OnProgress = ignore, *, size_bytes: int | None = None
) -> LockedMember:
    """Extract one file of a wheel into the cache. Each byte is read and written once.

    Args:
        wheel: verified by the caller.
        member: the path inside the wheel.
        cache: gets the file, under its own digest.
        on_progress: called with bytes.
        size_bytes: as the lock states it; a member of another size is not extracted.

    Raises:
        ApplianceError: there is no such member, or the wheel is no readable ZIP file; the disk is full.
        DamagedError: the member has another size than the lock states.
    """
    name = member.rsplit("/", 1)[-1]
    with _readable(wheel):
        archive = zipfile.ZipFile(wheel)
    with archive, cache.claim(sha256(f"{wheel.name}#{member}".encode())) as path, Partial(path) as partial:
        partial.restart()
        info = _member(archive, member)
        if size_bytes not in (None, info.file_size):
            raise DamagedError(
                "source.differs-from-lock", member, expected=f"{size_bytes} bytes", found=f"{info.file_size} bytes"
            )
        require_space(path.parent, info.file_size)
        try:
            for block in _blocks(archive, info, wheel):
                partial.write(block)
                on_progress(Progress(f"unpacking {name}", partial.size, info.file_size))
        except BaseException:
            partial.restart()
            raise
        cache.adopt(path, partial.digest)
        return LockedMember(member, partial.size, partial.digest)


def _blocks(archive: zipfile.ZipFile, info: zipfile.ZipInfo, wheel: Path) -> Iterator[bytes]:
    # Only errors of reading are errors of the wheel; those of writing pass through.
    with _readable(wheel), archive.open(info) as stream:
        while block := stream.read(READ_BYTES):
            yield block


@contextmanager
def _readable(wheel: Path) -> Iterator[None]:
    try:
        yield
    except BROKEN_ZIP as error:
        found = str(error)[:200] or type(error).__name__
        raise ApplianceError(
            "source.unreadable", wheel.name, expected="a wheel (ZIP)", found=found, hint="use another version"
        ) from None


def _member(archive: zipfile.ZipFile, member: str) -> zipfile.ZipInfo:
    names = [name for name in archive.namelist() if not name.endswith("/")]
    if names.count(member) == 1:
        return archive.getinfo(member)
    close = difflib.get_close_matches(member, names, n=3, cutoff=0.4)
    raise ApplianceError(
        "source.no-member",
        member,
        expected="one file of that path inside the wheel",
        found=f"{names.count(member)} among {len(names)} files",
        hint="correct the path after the # in the recipe" + (f"; it holds {', '.join(close)}" if close else ""),
    )


def _use_local(locked: Locked, path: Path, on_progress: OnProgress) -> Path:
    digest, size = file.measure(path, on_progress)
    if (digest, size) != (locked.sha256, locked.size):
        raise _differs(locked.fetched, digest, size)
    return path


def _fetch_whole(
    locked: Locked, source: RecipeSource | None, cache: Cache, on_progress: OnProgress, env: Mapping[str, str]
) -> Path:
    pin = locked.fetched
    if path := cached(pin, cache, on_progress):
        return path
    remote = _locate(locked, source, env)
    if remote.sha256 not in (None, pin.sha256):
        raise _differs(pin, remote.sha256, remote.size)
    with cache.claim(pin.sha256) as partial:
        if path := cached(pin, cache, on_progress):
            return path  # another process fetched it while this one waited
        was_begun = partial.stat().st_size > 0
        digest, size = download(remote, partial, on_progress)
        if digest != pin.sha256 and was_begun:
            os.truncate(partial, 0)
            digest, size = download(remote, partial, on_progress)
        if (digest, size) != (pin.sha256, pin.size):
            os.truncate(partial, 0)
            raise _differs(pin, digest, size)
        return cache.adopt(partial, digest)


def _locate(locked: Locked, source: RecipeSource | None, env: Mapping[str, str]) -> Remote:
    if isinstance(source, HfSource):
        return hf.locate(replace(source, commit=source.commit or locked.version), env, locked.size)
    if isinstance(source, HttpsSource):
        return https.locate(source, locked.size)
    project = source.project if isinstance(source, PypiSource) else locked.name
    return open_index(index_url(env)).locate(project, locked.file, locked.size)


def _pin_of_cached(digest: Digest, name: str, cache: Cache, on_progress: OnProgress) -> Pin | None:
    try:
        pin = Pin(name, cache.path(digest).stat().st_size, digest)
    except OSError:
        return None
    return pin if cached(pin, cache, on_progress) else None


def _describe(digest: Digest | None, size: int | None) -> str:
    parts = [f"sha256 {digest}" if digest else "", f"{size} bytes" if size is not None else ""]
    return ", ".join(part for part in parts if part)


def _differs(pin: Pin, digest: Digest | None, size: int | None) -> DamagedError:
    found = f"more than {pin.size} bytes" if size is not None and size > pin.size else _describe(digest, size)
    return DamagedError(
        "source.differs-from-lock",
        pin.file,
        expected=f"sha256 {pin.sha256}, {pin.size} bytes, as the lock pins it",
        found=found,
        hint="the file changed at its source or was altered on the way: try again; "
        "if upstream meant it, review and run: appliance lock --upgrade RECIPE",
    )
