"""From a recipe to its lock: every source found, brought once, and pinned.

Owns what belongs into a lock and what of an earlier lock is kept. It must never look up again what an earlier lock pins
and the recipe still asks for: locking twice changes nothing and touches no network.

Rules:
- sizes and digests are those of the bytes brought here, not those that an index claims (which are compared, too);
- models, the runtime's sdist, its build tools, uv and the wheels for each Python are locked separately: a changed model
  does not move a wheel;
- `upgrade` looks everything up again; the date of the bundle's files stays that of the first lock;
- what a model is converted to is pinned too: it stays while all that it is made from does, and nobody asks to convert;
- the day of a project's last release pins nothing, and is looked up once (`appliance.builder.lock.release_dates`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from packaging.requirements import Requirement
from pypi_simple import DistributionPackage

from appliance.builder.cache.content_store import Cache
from appliance.builder.debian.apt import machine_mirror
from appliance.builder.debian.packages import FindMirror, lock_packages
from appliance.builder.lock.fetch import extract, fetch, fetch_unpinned
from appliance.builder.lock.lockfile import RUNTIME, Lock, Locked, LockedClosure, LockedSystem, Pin, sort_key
from appliance.builder.lock.parts import concatenate
from appliance.builder.lock.release_dates import add_release_dates
from appliance.builder.models.conversion import convert
from appliance.builder.recipe.model import Recipe, RecipeFile, RecipeModel
from appliance.builder.resolve.coverage import (
    asked_packages,
    check_licences,
    covers_closure,
    covers_model,
    input_name,
    order_of,
)
from appliance.builder.resolve.sdist import sdist_metadata
from appliance.builder.resolve.wheel_closure import (
    BUILDER_GLIBC,
    best_wheel,
    host_requires,
    newest_wheel,
    resolve,
    target_tags,
    without_extras,
)
from appliance.builder.runtime.cuda import TOOLKIT
from appliance.builder.sources import FileSource, HfSource, PypiSource, hf, https, parse_source
from appliance.builder.sources import file as local
from appliance.builder.sources.pypi import Index, index_url, open_index, remote
from appliance.builder.wheels.reader import wheel_metadata
from bundles.progress import OnProgress, Progress, ignore
from signing.errors import UsageError

BUILD_TOOLS = ("cmake>=3.26,<5", "ninja>=1.11")
TOOLS = ("uv>=0.9",)


@dataclass(frozen=True, slots=True)
class _Desk:
    """What every step of locking needs: the recipe, the cache, the index, who listens."""

    recipe: Recipe
    folder: Path
    cache: Cache
    env: Mapping[str, str]
    on_progress: OnProgress
    converter: Path | None = None

    @property
    def index(self) -> Index:
        return open_index(index_url(self.env))


def lock_recipe(
    recipe: Recipe,
    recipe_path: Path,
    cache: Cache,
    previous: Lock | None,
    *,
    now: datetime,
    upgrade: bool = False,
    requires: tuple[str, ...] | None = None,
    env: Mapping[str, str] = os.environ,
    on_progress: OnProgress = ignore,
    find_mirror: FindMirror = machine_mirror,
    converter: Path | None = None,
) -> Lock:
    """Pin everything that a recipe asks for.

    Args:
        recipe: as read.
        recipe_path: relative `file:` sources start at its folder.
        cache: keeps what is brought, so that a build needs no network after it.
        previous: the lock so far; what it pins is kept while the recipe still asks for it.
        now: the date of the bundle's files, if this is the first lock.
        upgrade: look everything up again.
        requires: what the host needs; None takes it from this program's distribution.
        env: the environment, for the package index and the hub.
        on_progress: told about bytes and steps.
        find_mirror: where the packages of a system are had.
        converter: a Python that has what llama.cpp's converter imports, for models that are converted.

    Raises:
        ApplianceError: a source is unreachable, gone, refused, or no set of wheels fits; the disk is full.
        DamagedError: an index claims other bytes than it sends.
        UsageError: a source names something that does not exist.
    """
    check_licences(recipe, recipe_path)
    desk = _Desk(recipe, recipe_path.parent, cache, env, on_progress, converter)
    kept = None if upgrade else previous
    sdist = _lock_sdist(desk, kept)
    entries = [sdist, *(_lock_file(desk, file, kept) for file in recipe.files)]
    for model in recipe.models:
        entries += _lock_model(desk, model, kept)
        entries += _lock_beside(desk, model, entries[-1], kept)
    entries += [_lock_converted(desk, model, sdist, entries, previous) for model in recipe.models if model.convert]
    build_tools = (*BUILD_TOOLS, *(TOOLKIT if recipe.runtime.cuda else ()))
    entries += [_lock_program(desk, "build-tool", text, BUILDER_GLIBC, kept) for text in build_tools]
    oldest = recipe.pythons[0]
    entries += [_lock_program(desk, "tool", text, recipe.glibc_for(oldest), kept) for text in TOOLS]
    closures, wheels = _lock_wheels(desk, sdist, host_requires() if requires is None else requires, kept)
    epoch = previous.source_date_epoch if previous else int(now.timestamp())
    systems, packages = _lock_systems(desk, kept, find_mirror)
    dated = add_release_dates([*entries, *wheels], env, on_progress)
    return Lock(epoch, closures, tuple(sorted([*dated, *packages], key=sort_key)), systems)


def _lock_model(desk: _Desk, model: RecipeModel, kept: Lock | None) -> list[Locked]:
    entry = kept.find("model", model.name) if kept else None
    if kept and entry is not None and covers_model(entry, model.source_text, model.licence):
        return [entry, *kept.parts_of(model.name)]
    if not model.parts:
        return [_lock_source(desk, "model", model.name, model.source_text, model.licence)]
    # Numbered with leading zeros, since the lock sorts by name.
    names = [f"{model.name}.{number:04}" for number in range(1, len(model.parts) + 1)]
    parts = [
        _lock_source(desk, "model-part", name, text, model.licence)
        for name, text in zip(names, model.parts, strict=True)
    ]
    paths = [fetch(part, desk.cache, desk.on_progress, recipe_folder=desk.folder, env=desk.env) for part in parts]
    digest, size = concatenate(model.name, paths, desk.cache, desk.on_progress)
    whole = Locked("model", model.name, "", f"{model.name}.gguf", size, digest, model.licence, model.source_text)
    return [whole, *parts]


def _lock_beside(desk: _Desk, model: RecipeModel, weights: Locked, kept: Lock | None) -> list[Locked]:
    found = []
    for name, text in model.beside.items():
        entry = kept.find("model-file", f"{model.name}/{name}") if kept else None
        if entry is None or not covers_model(entry, text, model.licence) or entry.version != weights.version:
            entry = _lock_source(desk, "model-file", f"{model.name}/{name}", text, model.licence, weights.version)
        found.append(entry)
    return found


def _lock_converted(
    desk: _Desk, model: RecipeModel, sdist: Locked, entries: list[Locked], previous: Lock | None
) -> Locked:
    order = order_of(model, Lock(0, (), tuple(entries)))
    entry = previous.find("converted", model.name) if previous else None
    if desk.converter is None and entry is not None and (entry.made, entry.licence) == (order.step, model.licence):
        return entry
    inputs = {name: one for one in entries if (name := input_name(one, model.name))}
    paths = {
        name: fetch(one, desk.cache, desk.on_progress, recipe_folder=desk.folder, env=desk.env)
        for name, one in inputs.items()
    }
    archive = fetch(sdist, desk.cache, desk.on_progress, env=desk.env)
    pin, versions = convert(order, archive, sdist.version, paths, desk.converter, desk.cache, desk.on_progress)
    return Locked("converted", model.name, versions, pin.file, pin.size, pin.sha256, model.licence, made=order.step)


def _lock_file(desk: _Desk, file: RecipeFile, kept: Lock | None) -> Locked:
    entry = kept.find("file", file.path) if kept else None
    if entry is not None and covers_model(entry, file.source, file.licence):
        return entry
    return _lock_source(desk, "file", file.path, file.source, file.licence)


def _lock_source(desk: _Desk, kind: str, name: str, text: str, licence: str, commit: str = "") -> Locked:
    source, version, member = parse_source(text), "", None
    if isinstance(source, PypiSource):
        package = _wheel(desk, source.project, source.version, desk.recipe.pythons[0])
        pin, version = fetch_unpinned(remote(package), desk.cache, desk.on_progress), source.version
        member = extract(desk.cache.path(pin.sha256), source.member, desk.cache, desk.on_progress)
    elif isinstance(source, FileSource):
        digest, size = local.measure(local.find(source, desk.folder), desk.on_progress)
        pin = Pin(source.file, size, digest)
    elif isinstance(source, HfSource):
        source = replace(source, commit=source.commit or commit)
        source = source if source.commit else hf.newest(source, desk.env)
        pin, version = fetch_unpinned(hf.locate(source, desk.env), desk.cache, desk.on_progress), source.commit
    else:
        pin = fetch_unpinned(https.locate(source), desk.cache, desk.on_progress)
    return Locked(kind, name, version, pin.file, pin.size, pin.sha256, licence, source=text, member=member)


def _lock_sdist(desk: _Desk, kept: Lock | None) -> Locked:
    version = desk.recipe.runtime.llama_cpp_python
    entry = kept.find("sdist", RUNTIME) if kept else None
    if entry is not None and entry.version == version:
        return entry
    found = [one for one in desk.index.files(RUNTIME) if one.package_type == "sdist" and one.version == version]
    if not found:
        raise _absent(f"{RUNTIME} {version}", "a source archive in the package index")
    pin = fetch_unpinned(remote(found[0]), desk.cache, desk.on_progress)
    licence = sdist_metadata(desk.cache.path(pin.sha256)).get("license", "")
    return Locked("sdist", RUNTIME, version, pin.file, pin.size, pin.sha256, licence)


def _lock_program(desk: _Desk, kind: str, text: str, glibc: tuple[int, int], kept: Lock | None) -> Locked:
    requirement = Requirement(text)
    entry = kept.find(kind, requirement.name) if kept else None
    if entry is not None and requirement.specifier.contains(entry.version):
        return entry
    python = desk.recipe.pythons[0]
    tags = target_tags(python, desk.recipe.arch, glibc)
    newest = newest_wheel(desk.index.files(requirement.name), requirement.specifier, python, tags)
    if newest is None:
        raise _absent(text, f"a wheel for {desk.recipe.arch}")
    return _lock_wheel(desk, kind, requirement.name, newest[0], newest[1])


def _lock_wheel(desk: _Desk, kind: str, name: str, version: str, package: DistributionPackage) -> Locked:
    pin = fetch_unpinned(remote(package), desk.cache, desk.on_progress)
    _, _, licence = wheel_metadata(desk.cache.path(pin.sha256))
    return Locked(kind, name, version, pin.file, pin.size, pin.sha256, licence)


def _lock_wheels(
    desk: _Desk, sdist: Locked, requires: tuple[str, ...], kept: Lock | None
) -> tuple[tuple[LockedClosure, ...], list[Locked]]:
    closures, by_python = [], {}
    for python in desk.recipe.pythons:
        if kept and covers_closure(kept, desk.recipe, python, requires) and kept.find("sdist", RUNTIME) == sdist:
            closures += [closure for closure in kept.closures if closure.python == python]
            by_python[python] = [replace(entry, python=None) for entry in kept.wheels_for(python)]
            continue
        closure, by_python[python] = _resolve_wheels(desk, sdist, requires, python, kept)
        closures.append(closure)
    return tuple(closures), _merge(by_python)


def _resolve_wheels(
    desk: _Desk, sdist: Locked, requires: tuple[str, ...], python: str, kept: Lock | None
) -> tuple[LockedClosure, list[Locked]]:
    # The binding is part of the runtime that is built from the sdist, so only what it needs is resolved here.
    archive = fetch(sdist, desk.cache, desk.on_progress, env=desk.env)
    wanted = tuple(sorted({*requires, *without_extras(sdist_metadata(archive).get("requires_dist", []))}))
    arch, glibc = desk.recipe.arch, desk.recipe.glibc_for(python)
    desk.on_progress(Progress(f"resolving the wheels for Python {python}", 0, 1, "steps"))
    preferred = {entry.name: entry.version for entry in kept.wheels_for(python)} if kept else {}
    pins = resolve(wanted, python, arch, glibc, preferred=preferred, env=desk.env)
    desk.on_progress(Progress(f"resolving the wheels for Python {python}", 1, 1, "steps"))
    old = {(entry.name, entry.version): entry for entry in (kept.wheels_for(python) if kept else ())}
    entries = []
    for name, version in sorted(pins.items()):
        package = _wheel(desk, name, version, python)
        before = old.get((name, version))
        if before is not None and before.file == package.filename:
            entries.append(replace(before, python=None))
        else:
            entries.append(_lock_wheel(desk, "wheel", name, version, package))
    return LockedClosure(python, arch, "{}.{}".format(*glibc), wanted), entries


def _lock_systems(
    desk: _Desk, kept: Lock | None, find_mirror: FindMirror
) -> tuple[tuple[LockedSystem, ...], list[Locked]]:
    systems: dict[str, LockedSystem] = {}
    entries: list[Locked] = []
    for target in sorted(desk.recipe.targets, key=lambda target: target.os):
        system = asked_packages(target)
        if not system.packages:
            continue
        systems[target.os] = system
        if kept and system in kept.systems:
            entries += kept.packages_for(target.os)
        else:
            entries += lock_packages(target, desk.cache, desk.on_progress, find_mirror=find_mirror)
    return tuple(systems.values()), entries


def _merge(by_python: Mapping[str, list[Locked]]) -> list[Locked]:
    # A wheel that every Python takes stands once; one that only some take stands once for each of them.
    shared = set.intersection(*(set(entries) for entries in by_python.values()))
    own = [
        replace(entry, python=python)
        for python, entries in by_python.items()
        for entry in entries
        if entry not in shared
    ]
    return [*shared, *own]


def _wheel(desk: _Desk, name: str, version: str, python: str) -> DistributionPackage:
    tags = target_tags(python, desk.recipe.arch, desk.recipe.glibc_for(python))
    package = best_wheel(desk.index.files(name), version, tags)
    if package is None:
        raise _absent(f"{name} {version}", f"a wheel for Python {python} on {desk.recipe.arch}")
    return package


def _absent(subject: str, expected: str) -> UsageError:
    return UsageError(
        "source.absent",
        subject,
        expected=expected,
        found="none in the package index",
        hint="check the name and version in the recipe",
    )
