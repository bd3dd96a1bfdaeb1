"""The lines of a lock for what comes from the package index: the runtime's sdist, programs, and the wheels of a host.

Owns which wheels stand once in a lock and which stand for one Python. It must never choose a version that the earlier
lock pins otherwise, while that one still fits.

Rules:
- a wheel that every Python takes stands once; one that only some take stands once for each of them;
- the binding is part of the runtime that is built from the sdist, so that only what it requires is resolved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from packaging.requirements import Requirement
from pypi_simple import DistributionPackage

from appliance.builder.lock.lockfile import RUNTIME, Locked, LockedClosure
from appliance.builder.lock.pinned_fetch import local_path
from appliance.builder.resolve.context import LockContext
from appliance.builder.resolve.coverage import covers_closure
from appliance.builder.resolve.sdist import sdist_metadata
from appliance.builder.resolve.wheel_closure import best_wheel, newest_wheel, resolve, target_tags, without_extras
from appliance.builder.runtime.cached_builds import BuiltWith
from appliance.builder.sources.pypi import remote
from appliance.builder.wheels.reader import wheel_metadata
from bundles.progress import Progress
from signing.errors import UsageError


def lock_sdist(context: LockContext) -> Locked:
    """The line of the runtime's source archive.

    Raises:
        UsageError: the index has none of that version.
        ApplianceError: the index is unreachable, or refuses.
    """
    version = context.recipe.runtime.llama_cpp_python
    entry = context.find_kept("sdist", RUNTIME)
    if entry is not None and entry.version == version:
        return entry
    found = [one for one in context.index.files(RUNTIME) if one.package_type == "sdist" and one.version == version]
    if not found:
        raise _absent(f"{RUNTIME} {version}", "a source archive in the package index")
    pin = context.download(remote(found[0]))
    licence = sdist_metadata(context.cache.path(pin.sha256)).get("license", "")
    return Locked("sdist", RUNTIME, version, pin.file, pin.size, pin.sha256, licence)


def lock_program(
    context: LockContext,
    kind: str,
    text: str,
    glibc: tuple[int, int],
    built_with: Mapping[str, BuiltWith] | None = None,
) -> Locked:
    """The line of a program from the index: that of a runtime in the cache, else its newest version that fits.

    Args:
        context: of this run.
        kind: of the line.
        text: a requirement such as `ninja>=1.11`.
        glibc: the C library's version where the program runs.
        built_with: the tools of a runtime in the cache, by name; another version would have it compiled again.

    Raises:
        UsageError: the index has no wheel that fits.
        ApplianceError: the index is unreachable, or refuses.
    """
    requirement = Requirement(text)
    entry = context.find_kept(kind, requirement.name)
    if entry is not None and requirement.specifier.contains(entry.version):
        return entry
    python = context.recipe.pythons[0]
    tags = target_tags(python, context.recipe.arch, glibc)
    packages = context.index.files(requirement.name)
    known = (built_with or {}).get(requirement.name)
    if known is not None and requirement.specifier.contains(known.version):
        usable = [one for one in packages if not one.is_yanked and remote(one).sha256 in (None, known.sha256)]
        if package := best_wheel(usable, known.version, tags):
            found = _lock_wheel(context, kind, requirement.name, known.version, package)
            if found.sha256 == known.sha256:
                return found
    newest = newest_wheel(packages, requirement.specifier, python, tags)
    if newest is None:
        raise _absent(text, f"a wheel for {context.recipe.arch}")
    return _lock_wheel(context, kind, requirement.name, newest[0], newest[1])


def lock_wheels(
    context: LockContext, sdist: Locked, requires: tuple[str, ...]
) -> tuple[tuple[LockedClosure, ...], list[Locked]]:
    """The lines of the wheels that hosts need, for all Pythons of the recipe.

    Args:
        context: of this run.
        sdist: of the runtime, whose requirements count, too.
        requires: what the host half of this program requires.

    Returns:
        What was resolved for each Python, and the lines.

    Raises:
        ApplianceError: no set of wheels fits, or the index is unreachable.
    """
    kept, closures, by_python = context.kept, [], {}
    for python in context.recipe.pythons:
        old = [closure for closure in kept.closures if closure.python == python] if kept else []
        covered = kept is not None and covers_closure(kept, context.recipe, python, requires)
        if kept and covered and kept.find("sdist", RUNTIME) == sdist and not _surplus(context, old, sdist, requires):
            closures += old
            by_python[python] = [replace(entry, python=None) for entry in kept.wheels_for(python)]
            continue
        closure, by_python[python] = _resolve_wheels(context, sdist, requires, python)
        closures.append(closure)
    return tuple(closures), _merge(by_python)


def _surplus(
    context: LockContext, closures: Iterable[LockedClosure], sdist: Locked, requires: tuple[str, ...]
) -> set[str]:
    """Requirements of earlier closures that nothing has now; none where the sdist is not here to be read."""
    archive = local_path(sdist, context.cache, context.recipe_folder)
    if archive is None:
        return set()
    wanted = {*requires, *without_extras(sdist_metadata(archive).get("requires_dist", []))}
    return {one for closure in closures for one in closure.requires} - wanted


def find_wheel(context: LockContext, name: str, version: str, python: str) -> DistributionPackage:
    """The wheel of a package that fits a target best.

    Raises:
        UsageError: the index has none that fits.
        ApplianceError: the index is unreachable, or refuses.
    """
    tags = target_tags(python, context.recipe.arch, context.recipe.glibc_for(python))
    package = best_wheel(context.index.files(name), version, tags)
    if package is None:
        raise _absent(f"{name} {version}", f"a wheel for Python {python} on {context.recipe.arch}")
    return package


def _resolve_wheels(
    context: LockContext, sdist: Locked, requires: tuple[str, ...], python: str
) -> tuple[LockedClosure, list[Locked]]:
    archive = context.fetch(sdist)
    wanted = tuple(sorted({*requires, *without_extras(sdist_metadata(archive).get("requires_dist", []))}))
    arch, glibc = context.recipe.arch, context.recipe.glibc_for(python)
    old = context.kept.wheels_for(python) if context.kept else ()
    task = f"resolving the wheels for Python {python}"
    context.on_progress(Progress(task, 0, 1, "steps"))
    preferred = {entry.name: entry.version for entry in old}
    pins = resolve(wanted, python, arch, glibc, preferred=preferred, env=context.env)
    context.on_progress(Progress(task, 1, 1, "steps"))
    known = {(entry.name, entry.version): entry for entry in old}
    entries = []
    for name, version in sorted(pins.items()):
        package = find_wheel(context, name, version, python)
        before = known.get((name, version))
        if before is not None and before.file == package.filename:
            entries.append(replace(before, python=None))
        else:
            entries.append(_lock_wheel(context, "wheel", name, version, package))
    return LockedClosure(python, arch, "{}.{}".format(*glibc), wanted), entries


def _lock_wheel(context: LockContext, kind: str, name: str, version: str, package: DistributionPackage) -> Locked:
    pin = context.download(remote(package))
    _, _, licence = wheel_metadata(context.cache.path(pin.sha256))
    return Locked(kind, name, version, pin.file, pin.size, pin.sha256, licence)


def _merge(by_python: Mapping[str, list[Locked]]) -> list[Locked]:
    shared = set.intersection(*(set(entries) for entries in by_python.values()))
    own = [
        replace(entry, python=python)
        for python, entries in by_python.items()
        for entry in entries
        if entry not in shared
    ]
    return [*shared, *own]


def _absent(subject: str, expected: str) -> UsageError:
    return UsageError(
        "source.absent",
        subject,
        expected=expected,
        found="none in the package index",
        hint="check the name and version in the recipe",
    )
