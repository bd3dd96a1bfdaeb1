"""What `appliance plan` is given: the models of a SOURCE, what they are to bear, and a runtime that could be asked.

Owns telling a GGUF, a recipe, a bundle and a stick apart. A bundle's chain of trust is verified before anything of it
is read; a recipe's files come from this machine and this person's cache, and are only looked at.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bundles.gguf.memory import Workload
from signing.errors import ApplianceError, UsageError

if TYPE_CHECKING:
    from appliance.host.models.header import ModelHead
    from appliance.host.runtime.unpacked import UnpackedRuntime

DEFAULT_SLOTS = 4
MOST_CONTEXT = 8192
"""For a GGUF alone: what is asked of it unless a person says otherwise."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a person set on the command line; None where nothing."""

    context: int | None
    slots: int | None
    kv_type: str
    prefix: Path | None
    trust: Path | None
    workspace: Path | None

    def load(self, context: int, slots: int) -> Workload:
        """What a model is to bear: as the source says, unless set otherwise."""
        return Workload(self.context or context, self.slots or slots, self.kv_type)


@dataclass(frozen=True, slots=True)
class Source:
    """Models with what each is to bear, and a runtime at hand, or words why there is none."""

    models: tuple[tuple[ModelHead, Workload], ...]
    runtime: UnpackedRuntime | str


def read_source(path: Path, options: Options, scratch: Path) -> Source:
    """Look at a SOURCE.

    Args:
        path: a file or folder that a person named.
        options: of the command line.
        scratch: a private folder that outlives what is returned.

    Raises:
        UsageError: it is none of the four, or a model's file is not on this machine.
        DamagedError, NotTrustedError: of a bundle or a GGUF.
    """
    from appliance.host.models.header import head_of_file, is_gguf

    if path.is_dir():
        return _bundle(path, options, scratch)
    if is_gguf(path):
        head = head_of_file(path, path.name)
        load = options.load(min(head.header.context or MOST_CONTEXT, MOST_CONTEXT), DEFAULT_SLOTS)
        return Source(((head, load),), _any_runtime(options, scratch))
    if not path.exists():
        raise UsageError(
            "plan.source", str(path), expected="a GGUF, a recipe, a bundle or a stick", found="no such file or folder"
        )
    return _recipe(path, options, scratch)


def _bundle(path: Path, options: Options, scratch: Path) -> Source:
    from appliance.cli.runtime_source import open_given
    from appliance.host.models.header import head_of_bundle
    from appliance.host.runtime.unpacked import of_bundle
    from bundles.oci.layout import Layout

    layout = Layout(path)
    contents = open_given(path, options.prefix, options.trust, options.workspace).value.contents
    if not contents.models:
        raise UsageError("plan.no-model", str(path), expected="at least one model", found="none")
    models = tuple(
        (head_of_bundle(layout, contents, model), options.load(model.context, contents.serve.slots))
        for model in contents.models
    )
    return Source(models, of_bundle(layout, contents, scratch) if contents.of_kind("runtime") else "it holds none")


def _recipe(path: Path, options: Options, scratch: Path) -> Source:
    from appliance.builder.lock.lockfile import lock_path, read_lock
    from appliance.builder.recipe.model import load_recipe
    from appliance.host.models.header import head_of_file

    recipe = load_recipe(path)
    lock = read_lock(lock_path(path)) if lock_path(path).exists() else None
    models = []
    for model in recipe.models:
        entry = lock.gguf_of(model.name) if lock else None
        file = _model_file(model.source, path.parent, entry)
        if file is None:
            import shlex

            raise UsageError(
                "plan.no-model",
                f"model {model.name}",
                expected="its file on this machine",
                found="not in the cache",
                hint=f"fetch it first: appliance lock {shlex.quote(str(path))}",
            )
        models.append((head_of_file(file, model.name), options.load(model.context, recipe.serve.slots)))
    return Source(tuple(models), _any_runtime(options, scratch))


def _model_file(source: str | tuple[str, ...], folder: Path, entry: object) -> Path | None:
    from appliance.builder.cache.content_store import Cache, cache_root
    from appliance.builder.lock.lockfile import Locked
    from appliance.builder.sources import FileSource, parse_source
    from appliance.builder.sources.file import find

    is_as_it_is = isinstance(entry, Locked) and entry.made is None
    local = parse_source(source) if isinstance(source, str) and (is_as_it_is or entry is None) else None
    if isinstance(local, FileSource):
        return find(local, folder)
    if not isinstance(entry, Locked):
        return None
    cache = Cache(cache_root(os.environ))
    return cache.path(entry.used.sha256) if cache.has(entry.used.sha256, entry.used.size) else None


def _any_runtime(options: Options, scratch: Path) -> UnpackedRuntime | str:
    """That of the installed release, or one that was built here before."""
    from appliance.cli.runtime_source import release_at_hand
    from appliance.host.runtime.unpacked import of_wheel

    try:
        found = release_at_hand(options.prefix, scratch)
    except (ApplianceError, OSError) as error:
        return f"the installed release cannot be used: {error}"
    if found is not None:
        return found.runtime
    wheel = _built_wheel()
    return of_wheel(wheel, scratch) if wheel else "nothing is installed, and none was built here"


def _built_wheel() -> Path | None:
    from appliance.builder.cache.content_store import cache_root
    from appliance.builder.runtime.store import BUILD_FILE, Slot
    from signing.digest import Digest
    from signing.errors import NotTrustedError
    from signing.strictjson import load_canonical

    cache = cache_root(os.environ) / "runtime"
    try:
        paths = sorted(cache.glob(f"*/{BUILD_FILE}"), key=lambda path: path.stat().st_mtime, reverse=True)
        keys = [load_canonical(path.read_bytes(), BUILD_FILE).get("key") for path in paths]
    except (OSError, NotTrustedError, AttributeError):
        return None
    found = (Slot(cache, Digest(key)).read_finished() for key in keys if isinstance(key, str))
    return next((built.path for built in found if built is not None), None)
