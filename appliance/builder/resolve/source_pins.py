"""The lines of a lock for models and files: each source found, downloaded and pinned.

Owns how each kind of source becomes a line, and what is pinned of a model in parts or of one that is converted. It
must never replace a line of the earlier lock that still fits the recipe.

Rules:
- a converted model is pinned, too: its line stays while all its inputs stay, and nobody asks to convert it again;
- the files beside a model's weights come from the same commit as the weights;
- the parts of a split model are pinned, and merged by a build; other parts are joined here, and pinned as a whole, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from appliance.builder.lock.lockfile import Lock, Locked, Pin
from appliance.builder.lock.model_parts import concatenate
from appliance.builder.lock.pinned_fetch import extract, local_path
from appliance.builder.models.conversion import convert
from appliance.builder.models.split_set import is_split_set, parts_argument
from appliance.builder.recipe.format_2 import GoldenFile
from appliance.builder.recipe.recipe import RecipeFile, RecipeModel
from appliance.builder.resolve.context import LockContext
from appliance.builder.resolve.coverage import conversion_request, covers_source, input_name
from appliance.builder.resolve.wheel_pins import find_wheel
from appliance.builder.sources import FileSource, HfSource, PypiSource, hf, https, parse_source
from appliance.builder.sources import file as local
from appliance.builder.sources.pypi import remote
from bundles.contents.golden_set import parse_golden_set


def lock_model(context: LockContext, model: RecipeModel) -> list[Locked]:
    """The line of a model, then one line for each of its parts.

    Raises:
        ApplianceError: a source is unreachable, gone or refused, or the disk is full.
        UsageError: a source names something that does not exist.
    """
    entry = context.find_kept("model", model.name)
    if context.kept and entry is not None and covers_source(entry, model.source_text, model.licence):
        kept = context.kept.parts_of(model.name)
        if entry.made is not None or not _was_joined_wrongly(context, model, kept):
            return [entry, *kept]
    if not model.parts:
        return [_lock_source(context, "model", model.name, model.source_text, model.licence)]
    # Numbered with leading zeros, since the lock sorts by name.
    names = [f"{model.name}.{number:04}" for number in range(1, len(model.parts) + 1)]
    parts = [
        _lock_source(context, "model-part", name, text, model.licence)
        for name, text in zip(names, model.parts, strict=True)
    ]
    paths = [context.fetch(part) for part in parts]
    if is_split_set(model.name, [part.used.file for part in parts], paths):
        # The build merges them, with a runtime that is not here yet: the first stands for the model.
        listed = parts_argument([(part.used.file, part.used.sha256) for part in parts])
        first = replace(parts[0], kind="model", name=model.name, source=model.source_text, made=f"merge {listed}")
        return [first, *parts]
    digest, size = concatenate(model.name, paths, context.cache, context.on_progress)
    whole = Locked("model", model.name, "", f"{model.name}.gguf", size, digest, model.licence, model.source_text)
    return [whole, *parts]


def _was_joined_wrongly(context: LockContext, model: RecipeModel, parts: Sequence[Locked]) -> bool:
    """Whether a lock of an older version of this program pins a split model as if its parts were to be joined."""
    paths = [local_path(part, context.cache, context.recipe_folder) for part in parts]
    files = [path for path in paths if path is not None]
    return len(files) == len(parts) > 1 and is_split_set(model.name, [part.used.file for part in parts], files)


def lock_beside(context: LockContext, model: RecipeModel, weights: Locked) -> list[Locked]:
    """The lines of the files beside the weights of a model that is converted.

    Raises:
        ApplianceError, UsageError: as `lock_model`.
    """
    found = []
    for name, text in model.beside.items():
        entry = context.find_kept("model-file", f"{model.name}/{name}")
        if entry is None or not covers_source(entry, text, model.licence) or entry.version != weights.version:
            entry = _lock_source(context, "model-file", f"{model.name}/{name}", text, model.licence, weights.version)
        found.append(entry)
    return found


def lock_converted(
    context: LockContext,
    model: RecipeModel,
    sdist: Locked,
    entries: Sequence[Locked],
    previous: Lock | None,
    converter: Path | None,
) -> Locked:
    """The line of a converted model: kept while its inputs are the same, else pinned after a conversion.

    Args:
        context: of this run.
        model: has `convert` in the recipe.
        sdist: of the runtime, with the converter.
        entries: the lines so far, with all inputs of the conversion.
        previous: the lock so far, also where everything else is looked up again.
        converter: a Python that has what the converter imports; one that is named always converts.

    Raises:
        UsageError: the model is to be converted, and no converter was named.
        ApplianceError: the converter failed.
    """
    request = conversion_request(model, entries)
    entry = previous.find("converted", model.name) if previous else None
    if converter is None and entry is not None and (entry.made, entry.licence) == (request.step, model.licence):
        return entry
    inputs = {name: one for one in entries if (name := input_name(one, model.name))}
    paths = {name: context.fetch(one) for name, one in inputs.items()}
    archive = context.fetch(sdist)
    pin, versions = convert(request, archive, sdist.version, paths, converter, context.cache, context.on_progress)
    return Locked("converted", model.name, versions, pin.file, pin.size, pin.sha256, model.licence, made=request.step)


def lock_file(context: LockContext, file: RecipeFile | GoldenFile) -> Locked:
    """The line of a further file of the bundle, or of a golden set.

    Raises:
        ApplianceError, UsageError: as `lock_model`.
        NotTrustedError: a golden set breaks its form (FORMAT 3.4).
    """
    entry = context.find_kept("file", file.path)
    if entry is not None and covers_source(entry, file.source, file.licence):
        return entry
    entry = _lock_source(context, "file", file.path, file.source, file.licence)
    if file.kind == "golden-set":
        parse_golden_set(context.fetch(entry).read_bytes(), f"{file.path} ({file.source})")
    return entry


def _lock_source(context: LockContext, kind: str, name: str, text: str, licence: str, commit: str = "") -> Locked:
    source, version, member = parse_source(text), "", None
    if isinstance(source, PypiSource):
        package = find_wheel(context, source.project, source.version, context.recipe.pythons[0])
        pin, version = context.download(remote(package)), source.version
        member = extract(context.cache.path(pin.sha256), source.member, context.cache, context.on_progress)
    elif isinstance(source, FileSource):
        digest, size = local.measure(local.find(source, context.recipe_folder), context.on_progress)
        pin = Pin(source.file, size, digest)
    elif isinstance(source, HfSource):
        source = replace(source, commit=source.commit or commit)
        source = source if source.commit else hf.newest(source, context.env)
        pin, version = context.download(hf.locate(source, context.env)), source.commit
    else:
        pin = context.download(https.locate(source))
    return Locked(kind, name, version, pin.file, pin.size, pin.sha256, licence, source=text, member=member)
