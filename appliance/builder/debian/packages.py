"""The OS packages of a bundle: resolved for a target, pinned in the lock, and fetched by digest.

Owns the step from `packages:` of a recipe's target to locked entries, and from those to verified files. How apt is
called is decided in `appliance.builder.debian.apt`. It must never take a package that the release's keys do not cover.

Rules:
- a target's closure is resolved against nothing installed, so that a bare host finds everything in the bundle;
- the lock holds name, version, file, size and SHA-256, never an address;
- a release drops older versions, so a locked package can vanish: then the lock is stale, an error before any build;
- a file is hashed here before it enters the cache, although apt has verified it already.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.builder.cache.content_store import Cache, require_space
from appliance.builder.debian.apt import Apt, Mirror, Package, machine_mirror
from appliance.builder.lock.lockfile import Lock, Locked, LockedSystem
from appliance.builder.lock.pinned_fetch import cached
from appliance.builder.recipe.recipe import RecipeTarget
from appliance.builder.sources.file import measure
from bundles.progress import OnProgress, Progress, ignore
from signing.errors import DamagedError, UsageError

KIND = "os-package"
FindMirror = Callable[[str], Mirror]


def lock_packages(
    target: RecipeTarget, cache: Cache, on_progress: OnProgress = ignore, *, find_mirror: FindMirror = machine_mirror
) -> list[Locked]:
    """Resolve and fetch the packages of one target.

    Args:
        target: of the recipe; names at least one package.
        cache: gets the files.
        on_progress: called with steps.
        find_mirror: gives the mirror of a system, by its name.

    Raises:
        UsageError: the release has no such package.
        HostUnfitError: this machine has no apt or no keys of the release.
        ApplianceError: the mirror cannot be reached.
    """
    label = f"resolving the packages for {target.os}"
    on_progress(Progress(label, 0, 1, "steps"))
    with _apt(target.os, target.arch, cache, find_mirror) as apt:
        apt.refresh()
        found = apt.closure(target.wanted_packages)
        on_progress(Progress(label, 1, 1, "steps"))
        entries = [_entry(package, target.os) for package in found]
        _download(entries, apt, cache, on_progress)
    return entries


def fetch_packages(
    lock: Lock,
    cache: Cache,
    recipe_path: Path,
    on_progress: OnProgress = ignore,
    *,
    find_mirror: FindMirror = machine_mirror,
) -> dict[Locked, Path]:
    """The locked packages as verified files; no network is needed where the cache has them all.

    Args:
        lock: as read.
        cache: searched first; downloaded files are put there.
        recipe_path: for the hint.
        on_progress: called with bytes.
        find_mirror: gives the mirror of a system, by its name.

    Raises:
        UsageError: `lock.stale`: a locked package is gone from the release.
        DamagedError: the mirror's bytes differ from the lock.
        HostUnfitError, ApplianceError: as `lock_packages`.
    """
    for system in lock.systems:
        missing = [entry for entry in lock.packages_for(system.os) if not cached(entry.fetched, cache, on_progress)]
        if missing:
            with _apt(system.os, system.arch, cache, find_mirror) as apt:
                apt.refresh()
                _check_there(missing, apt, system, recipe_path)
                _download(missing, apt, cache, on_progress)
    return {entry: cache.path(entry.sha256) for entry in lock.of_kind(KIND)}


def _check_there(entries: list[Locked], apt: Apt, system: LockedSystem, recipe_path: Path) -> None:
    try:
        found = {(package.name, package.version): package for package in apt.describe(_pairs(entries))}
        gone = [entry for entry in entries if (entry.name, entry.version) not in found]
        subject = ", ".join(f"{entry.name} {entry.version}" for entry in gone)
    except UsageError as error:
        subject = error.subject
    if subject:
        raise UsageError(
            "lock.stale",
            f"packages of {system.os}: {subject}",
            expected="packages that the release still has",
            found="gone from it: a release keeps only the newest version of each",
            hint=f"appliance lock --upgrade {recipe_path}",
        )
    # A package with another digest than the locked one is an error before anything is fetched.
    for entry in entries:
        package = found[entry.name, entry.version]
        if package.sha256 != entry.sha256:
            raise _differs(entry, package.sha256)


def _download(entries: list[Locked], apt: Apt, cache: Cache, on_progress: OnProgress) -> None:
    missing = [entry for entry in entries if not cached(entry.fetched, cache, on_progress)]
    if not missing:
        return
    label, total = "fetching packages", sum(entry.size for entry in missing)
    on_progress(Progress(label, 0, total))
    require_space(cache.folder("apt"), total)
    files, done = apt.download(_pairs(missing)), 0
    for entry in missing:
        path = files[entry.name, entry.version]
        digest, size = measure(path)
        if (digest, size) != (entry.sha256, entry.size):
            raise _differs(entry, digest)
        cache.adopt(path, digest)
        done += size
        on_progress(Progress(label, done, total))


def _pairs(entries: list[Locked]) -> list[tuple[str, str]]:
    return [(entry.name, entry.version) for entry in entries]


def _entry(package: Package, system: str) -> Locked:
    return Locked(KIND, package.name, package.version, package.file, package.size, package.sha256, "", system=system)


@contextmanager
def _apt(system: str, arch: str, cache: Cache, find_mirror: FindMirror) -> Iterator[Apt]:
    # One process at a time: with apt's own locks the second would fail instead of waiting.
    folder = cache.folder("apt", f"{system}-{arch}")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield Apt(folder, find_mirror(system), arch)
        finally:
            shutil.rmtree(folder / "download", ignore_errors=True)
            os.utime(folder)


def _differs(entry: Locked, digest: str) -> DamagedError:
    return DamagedError(
        "source.differs-from-lock",
        entry.file,
        expected=f"sha256 {entry.sha256}, {entry.size} bytes, as the lock pins it",
        found=f"sha256 {digest}",
        hint="the package changed at its source or was altered on the way: try again, or ask the mirror's operators",
    )
