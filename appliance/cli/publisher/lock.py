"""`appliance lock`: pin every source of a recipe."""

from __future__ import annotations

import os
from pathlib import Path

import click

from appliance import clock
from appliance.builder.cache.content_store import Cache, cache_root
from appliance.builder.lock.lockfile import LockChange, Locked, changes, lock_path, read_lock, write_lock
from appliance.builder.recipe.reader import load_recipe
from appliance.builder.resolve.locked_models import check_locked_models
from appliance.builder.resolve.resolver import lock_recipe
from appliance.cli.console.options import converter_option, pass_terminal
from appliance.cli.console.terminal import Terminal


@click.command("lock")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--upgrade", is_flag=True, help="Look everything up again, instead of keeping what is pinned.")
@converter_option
@pass_terminal
def command(terminal: Terminal, recipe: Path, upgrade: bool, converter: Path | None) -> None:
    """Pin every source of RECIPE by size and SHA-256.

    The pins are written beside the recipe, into the file with its name and .lock.json. A source that is pinned already
    stays as it is, and needs no network. The files are kept in the cache, where `appliance build` finds them. A model
    that no engine could serve is refused: its header shows what it is.

    Build tools are those of a runtime in the cache, where one was compiled from the same sources: newer ones would have
    it compiled again. With --upgrade they are the newest.

    For each Python package the lock also records the day of its project's last release, where the package index
    reports one. `appliance build` warns of projects without a release for two years.

    \b
    Example:
      appliance lock bundles/recipes/smollm2.yaml
    """
    asked = load_recipe(recipe)
    path = lock_path(recipe)
    previous = read_lock(path) if path.exists() else None
    cache = Cache(cache_root(os.environ))
    with terminal.progress() as on_progress:
        lock = lock_recipe(
            asked,
            recipe,
            cache,
            previous,
            now=clock.utc_now(),
            upgrade=upgrade,
            on_progress=on_progress,
            converter=converter,
        )
    judged = check_locked_models(asked, lock, cache, recipe.parent)
    found = changes(previous, lock)
    is_new = write_lock(path, lock)
    for change in found:
        terminal.answer(_line(change))
    for name, file in judged.items():
        if file.remark:
            terminal.message(f"model {name} {file.remark}")
    # Several files of one wheel are one download.
    sizes = {entry.sha256: entry.size for entry in lock.entries}
    count = f"{len(lock.entries)} files, {sum(sizes.values())} bytes"
    terminal.message(f"{path}: {'written' if is_new else 'nothing to change'}, {count}")


def _line(change: LockChange) -> str:
    before, after = change.before, change.after
    if before is None or after is None:
        sign, entry = ("+", after) if before is None else ("-", before)
        return f"{sign} {_name(entry)} {entry.version} ({entry.size} bytes)".replace("  ", " ") if entry else ""
    parts = [f"{before.version} -> {after.version}"] if before.version != after.version else []
    parts += [f"{before.size} -> {after.size} bytes"] if before.size != after.size else []
    parts += [f"sha256 {before.sha256[:12]} -> {after.sha256[:12]}"] if before.sha256 != after.sha256 else []
    parts += [f"licence {before.licence} -> {after.licence}"] if before.licence != after.licence else []
    return f"~ {_name(after)}: {', '.join(parts) or f'{before.source} -> {after.source}'}"


def _name(entry: Locked) -> str:
    where = f"Python {entry.python}" if entry.python else entry.system
    return f"{entry.kind} {entry.name}" + (f" ({where})" if where else "")
