"""From a recipe to its lock: every source found, downloaded once, and pinned.

Owns what belongs into a lock, and its order. It must never look up again what an earlier lock pins and the recipe still
asks for: locking twice changes nothing and needs no network.

Rules:
- sizes and digests are those of the bytes that were downloaded; those that an index claims are compared with them;
- models, the runtime's sdist, its build tools, uv and the wheels for each Python are locked separately: a changed model
  does not move a wheel;
- a build tool is the one of a runtime in the cache of the same sources, so that it is not compiled again;
- `upgrade` looks everything up again; the date of the bundle's files stays that of the first lock;
- the day of a project's last release pins nothing, and is looked up once (`appliance.builder.lock.release_dates`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from appliance.builder.cache.content_store import Cache
from appliance.builder.debian.apt import machine_mirror
from appliance.builder.debian.packages import FindMirror, lock_packages
from appliance.builder.lock.lockfile import Lock, Locked, LockedSystem, sort_key
from appliance.builder.lock.release_dates import add_release_dates
from appliance.builder.recipe.recipe import Recipe
from appliance.builder.resolve.context import LockContext
from appliance.builder.resolve.coverage import check_licences, target_system
from appliance.builder.resolve.source_pins import lock_beside, lock_converted, lock_file, lock_model
from appliance.builder.resolve.wheel_closure import BUILDER_GLIBC, host_requires
from appliance.builder.resolve.wheel_pins import lock_program, lock_sdist, lock_wheels
from appliance.builder.runtime.build_job import runtime_flags
from appliance.builder.runtime.build_types import RuntimeSpec
from appliance.builder.runtime.cached_builds import BuiltWith, cached_builds, tools_built_with
from appliance.builder.runtime.cuda_toolkit import TOOLKIT
from bundles.progress import OnProgress, ignore
from signing.errors import HostUnfitError

BUILD_TOOLS = ("cmake>=3.26,<5", "ninja>=1.11")
TOOLS = ("uv>=0.9",)


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
        cache: gets every file, so that a build needs no network after it.
        previous: the lock so far; what it pins is kept while the recipe still asks for it.
        now: the date of the bundle's files, if this is the first lock.
        upgrade: look everything up again.
        requires: what the host needs; None takes it from this program's distribution.
        env: the environment, for the package index and the hub.
        on_progress: called with bytes and steps done.
        find_mirror: finds the Debian mirror of a system.
        converter: a Python that has what llama.cpp's converter imports, for models that are converted.

    Raises:
        ApplianceError: a source is unreachable, gone, refused, or no set of wheels fits; the disk is full.
        DamagedError: an index claims other bytes than it sends.
        UsageError: a source names something that does not exist.
    """
    check_licences(recipe, recipe_path)
    kept = None if upgrade else previous
    context = LockContext(recipe, recipe_path.parent, cache, kept, env, on_progress)
    sdist = lock_sdist(context)
    entries = [sdist, *(lock_file(context, file) for file in recipe.further_files)]
    for model in recipe.models:
        entries += lock_model(context, model)
        entries += lock_beside(context, model, entries[-1])
    entries += [
        lock_converted(context, model, sdist, entries, previous, converter) for model in recipe.models if model.convert
    ]
    build_tools = (*BUILD_TOOLS, *(TOOLKIT if recipe.runtime.cuda else ()))
    known = {} if upgrade else _tools_of_cached_runtime(context, sdist)
    entries += [lock_program(context, "build-tool", text, BUILDER_GLIBC, known) for text in build_tools]
    oldest = recipe.pythons[0]
    entries += [lock_program(context, "tool", text, recipe.glibc_for(oldest)) for text in TOOLS]
    closures, wheels = lock_wheels(context, sdist, host_requires() if requires is None else requires)
    epoch = previous.source_date_epoch if previous else int(now.timestamp())
    systems, packages = _lock_systems(context, find_mirror)
    dated = add_release_dates([*entries, *wheels], env, on_progress)
    return Lock(epoch, closures, tuple(sorted([*dated, *packages], key=sort_key)), systems)


def _tools_of_cached_runtime(context: LockContext, sdist: Locked) -> dict[str, BuiltWith]:
    chosen = context.recipe.runtime
    builds = cached_builds(context.cache.folder("runtime"), sdist.sha256, sdist.version)
    try:
        flags = runtime_flags(RuntimeSpec(chosen.llama_cpp_python, chosen.cpu)) if builds else None
    except HostUnfitError:  # the build reports it
        flags = None
    return tools_built_with(builds, flags)


def _lock_systems(context: LockContext, find_mirror: FindMirror) -> tuple[tuple[LockedSystem, ...], list[Locked]]:
    systems: dict[str, LockedSystem] = {}
    entries: list[Locked] = []
    for target in sorted(context.recipe.targets, key=lambda target: target.os):
        system = target_system(target)
        if not system.packages:
            continue
        systems[target.os] = system
        if context.kept and system in context.kept.systems:
            entries += context.kept.packages_for(target.os)
        else:
            entries += lock_packages(target, context.cache, context.on_progress, find_mirror=find_mirror)
    return tuple(systems.values()), entries
