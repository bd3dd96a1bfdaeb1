"""Whether a lock covers a recipe.

Owns the one comparison that decides what `appliance lock` keeps and what `appliance build` refuses. It must never use
a network.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from appliance.builder.lock.lockfile import RUNTIME, Lock, Locked, LockedSystem, lock_hint, lock_path
from appliance.builder.models.conversion import ConversionRequest
from appliance.builder.recipe.recipe import Recipe, RecipeModel, RecipeTarget
from appliance.builder.runtime.cuda_toolkit import TOOLKIT_NAMES
from signing.errors import UsageError


def check_covers(lock: Lock, recipe: Recipe, recipe_path: Path, requires: Iterable[str]) -> None:
    """Refuse a lock that lacks something that the recipe asks for.

    Args:
        lock: as read.
        recipe: as read.
        recipe_path: for the error and its hint.
        requires: what the host half of this program needs (`closure.host_requires`).

    Raises:
        UsageError: `lock.stale`, with everything that is missing.
    """
    check_licences(recipe, recipe_path)
    missing = [
        *_missing_sources(lock, recipe),
        *_missing_closures(lock, recipe, tuple(requires)),
        *_missing_packages(lock, recipe),
    ]
    errors = [
        UsageError(
            "lock.stale",
            f"{lock_path(recipe_path)} {subject}",
            expected=expected,
            found=found,
            hint=lock_hint(recipe_path),
        )
        for subject, expected, found in missing
    ]
    if errors:
        errors[0].others = tuple(errors[1:])
        raise errors[0]


def check_licences(recipe: Recipe, recipe_path: Path) -> None:
    """Refuse models whose licence has terms of its own, until the recipe names who accepted them, and when.

    Raises:
        UsageError: `licence.not-accepted`, for every such model.
    """
    errors = [
        UsageError(
            "licence.not-accepted",
            f"{recipe_path} model {model.name}",
            expected=f"on record, who accepted the terms of {model.licence}, and when",
            found="nobody",
            hint='read its terms, then add to this model:  accepted: {by: YOUR NAME, date: "YYYY-MM-DD"}',
        )
        for model in recipe.models
        if model.needs_acceptance
    ]
    if errors:
        errors[0].others = tuple(errors[1:])
        raise errors[0]


def covers_source(entry: Locked | None, source: str, licence: str) -> bool:
    """Whether a line of the lock has the source and the licence of a recipe's model or file."""
    return entry is not None and (entry.source, entry.licence) == (source, licence)


def input_name(entry: Locked, model: str) -> str:
    """The path of a locked file in the folder that a model is converted from; empty for a file of another model."""
    if entry.kind == "model" and entry.name == model:
        return entry.used.file
    owner, _, name = entry.name.partition("/")
    return name if entry.kind == "model-file" and owner == model else ""


def conversion_request(model: RecipeModel, entries: Iterable[Locked]) -> ConversionRequest:
    """The conversion of a model, from the lines of a lock.

    Args:
        model: has `convert` in the recipe.
        entries: among them the runtime's sdist and all files of the model.
    """
    lines = tuple(entries)
    inputs = {name: entry.used.sha256 for entry in lines if (name := input_name(entry, model.name))}
    sdist = next(entry for entry in lines if (entry.kind, entry.name) == ("sdist", RUNTIME))
    assert model.convert is not None
    return ConversionRequest(model.name, model.convert.to, sdist.sha256, inputs)


def covers_closure(lock: Lock, recipe: Recipe, python: str, requires: Iterable[str]) -> bool:
    """Whether the wheels for one Python were resolved from at least these requirements, for the same systems."""
    wanted = set(requires)
    glibc = "{}.{}".format(*recipe.glibc_for(python))
    return any(
        (closure.python, closure.arch, closure.glibc) == (python, recipe.arch, glibc)
        and wanted <= set(closure.requires)
        for closure in lock.closures
    )


def target_system(target: RecipeTarget) -> LockedSystem:
    """The system of a target and the packages that it asks for, in the lock's form."""
    return LockedSystem(target.os, target.arch, target.wanted_packages)


def _missing_sources(lock: Lock, recipe: Recipe) -> Iterable[tuple[str, str, str]]:
    for model in recipe.models:
        entry = lock.find("model", model.name)
        if not covers_source(entry, model.source_text, model.licence):
            found = f"{entry.source} ({entry.licence})" if entry else "nothing"
            yield f"model {model.name}", f"{model.source_text} ({model.licence})", found
        yield from _missing_conversion(lock, model)
    for file in recipe.further_files:
        entry = lock.find("file", file.path)
        if not covers_source(entry, file.source, file.licence):
            found = f"{entry.source} ({entry.licence})" if entry else "nothing"
            yield f"file {file.path}", f"{file.source} ({file.licence})", found
    sdist = lock.find("sdist", RUNTIME)
    if sdist is None or sdist.version != recipe.runtime.llama_cpp_python:
        yield f"sdist {RUNTIME}", recipe.runtime.llama_cpp_python, sdist.version if sdist else "nothing"
    for kind in ("build-tool", "tool"):
        if not lock.of_kind(kind):
            yield kind, "at least one", "nothing"
    for name in TOOLKIT_NAMES if recipe.runtime.cuda else ():
        if lock.find("build-tool", name) is None:
            yield f"build-tool {name}", "a part of the CUDA toolkit", "nothing"


def _missing_conversion(lock: Lock, model: RecipeModel) -> Iterable[tuple[str, str, str]]:
    locked = {entry.name: entry for entry in lock.files_of(model.name)}
    for name, text in model.beside.items():
        entry = locked.pop(f"{model.name}/{name}", None)
        if not covers_source(entry, text, model.licence):
            yield f"model {model.name}: {name}", f"{text} ({model.licence})", entry.source or "" if entry else "nothing"
    for name in locked:
        yield f"model {model.name}", "no file that the recipe does not name", name
    converted = lock.find("converted", model.name)
    if converted is not None and model.convert is None:
        yield f"model {model.name}", "the source as it is", "a converted one"
    if model.convert is not None and lock.find("sdist", RUNTIME):
        step = conversion_request(model, lock.entries).step
        if converted is None or converted.made != step:
            yield f"model {model.name}: convert", step, (converted and converted.made) or "nothing"


def _missing_closures(lock: Lock, recipe: Recipe, requires: tuple[str, ...]) -> Iterable[tuple[str, str, str]]:
    for python in recipe.pythons:
        if not covers_closure(lock, recipe, python, requires):
            glibc = "{}.{}".format(*recipe.glibc_for(python))
            yield (
                f"wheels for Python {python}",
                f"the closure of this program on {recipe.arch}, glibc {glibc}",
                "another",
            )


def _missing_packages(lock: Lock, recipe: Recipe) -> Iterable[tuple[str, str, str]]:
    locked = {system.os: system for system in lock.systems}
    for target in recipe.targets:
        system = target_system(target)
        if system != locked.get(target.os, LockedSystem(target.os, target.arch, ())):
            found = ", ".join(locked[target.os].packages) if target.os in locked else "none"
            yield f"packages of {target.os}", ", ".join(system.packages) or "none", found
