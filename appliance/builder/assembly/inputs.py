"""Collecting everything that a bundle is made of, as verified files.

Owns the list of sources for one recipe and lock: models, the runtime, wheels, tools, playbooks, licences, and the
recipe and lock themselves. It writes nothing into the bundle.

Rules:
- what is not in the lock, not built from the lock, and not part of this program does not go in;
- a model in the cache is not hashed here: `chunker.store_all` does that while it cuts, in one pass;
- the runtime is built from the locked sdist with the locked build tools; this program packs itself;
- where the recipe names graphics processors, their backend is built in the same way, and its toolkit libraries go in;
- a quantised model is made by that runtime from the locked source, and a split one is merged by it from its parts;
- a converted model is the file that the lock pins: from the cache, or converted again from the locked sources.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from appliance.builder.assembly.ahead import pins_to_check
from appliance.builder.assembly.licences import licence_files
from appliance.builder.bills.bill_inputs import Gathered, GatheredModel
from appliance.builder.bills.dependencies import format_dependencies
from appliance.builder.cache.content_store import Cache
from appliance.builder.chunking.chunker import Source
from appliance.builder.debian.packages import KIND, fetch_packages
from appliance.builder.lock.lockfile import RUNTIME, Lock, Locked, lock_path
from appliance.builder.lock.pinned_fetch import cached, check_cached, fetch, fetch_concatenated, local_path
from appliance.builder.models.conversion import check_pinned, convert, converted
from appliance.builder.models.merging import MergeRequest, merge
from appliance.builder.models.model_file import check_model_file
from appliance.builder.models.quantisation import QuantisationRequest, quantise
from appliance.builder.recipe.format_2 import GoldenFile
from appliance.builder.recipe.recipe import Recipe, RecipeFile, RecipeModel
from appliance.builder.resolve.coverage import conversion_request, input_name
from appliance.builder.resolve.locked_models import locked_architectures
from appliance.builder.runtime.build_job import build_runtime
from appliance.builder.runtime.build_types import BuiltRuntime, CudaSpec, RuntimeSpec, ToolWheels
from appliance.builder.runtime.compilation.toolchain import pinned_tools
from appliance.builder.runtime.cuda import build_cuda
from appliance.builder.runtime.cuda_toolkit import HOST_TOOLKIT_NAMES, TOOLKIT_NAMES
from appliance.builder.sources.file import measure
from appliance.builder.wheels.appliance_wheel import build_appliance_wheel
from appliance.builder.wheels.member_cache import cached_members
from appliance.builder.wheels.reader import wheel_record
from appliance.resources import playbooks_path
from bundles.contents.golden_set import parse_golden_set
from bundles.contents.lineage import Lineage
from bundles.progress import OnProgress
from signing.digest import Digest, sha256
from signing.errors import NotTrustedError, UsageError

LIBRARIES = "llama_cpp/lib"
PROGRAM = ("cffi", "click", "cryptography", "pyyaml", "rich")
"""What this program imports on a host before the release has an environment; with its own wheel, the bootstrap set."""
PAGE = "DEPENDENCIES.md"
"""Below `licences/`: the page of dependencies."""


def gather(
    recipe: Recipe,
    recipe_path: Path,
    lock: Lock,
    cache: Cache,
    on_progress: OnProgress,
    converter: Path | None = None,
) -> Gathered:
    """Fetch, build and list everything.

    Args:
        recipe: the parsed recipe.
        recipe_path: where it lies; relative `file:` sources start there.
        lock: covers the recipe.
        cache: of downloads and built runtimes.
        on_progress: called with bytes fetched and steps compiled.
        converter: a Python that has what llama.cpp's converter imports, for a converted model that is not in the cache.

    Raises:
        ApplianceError: of any part: unreachable, damaged, no compiler, no space.
    """
    context = _FetchContext(recipe_path.parent, cache, on_progress, converter)
    check_cached(pins_to_check(lock), cache)
    fetched = fetch_packages(lock, cache, recipe_path, on_progress)
    fetched |= {entry: context.fetch(entry) for entry in lock.of_kind("file", "sdist", "tool", "wheel")}
    for model in recipe.models:
        fetched[_packed(lock, model.name)] = _gguf(model, lock, context)
    _check_models(recipe, lock, fetched, context)
    runtime, cuda, of_cuda = _runtimes(recipe, lock, fetched, cache, on_progress)
    own, own_digest = _own_wheel(lock.source_date_epoch, cache)
    models = tuple(_model(model, lock, fetched, runtime, context) for model in recipe.models)
    wheels = [_locked_wheel(entry, path) for entry, path in fetched.items() if entry.kind == "wheel"]
    tools = [_tool(entry, path) for entry, path in fetched.items() if entry.kind == "tool"]
    packed = [
        *(model.source for model in models),
        *wheels,
        *tools,
        replace(_wheel(own.name, own, own_digest), bootstrap=True),
        _runtime_wheel(runtime, cache),
        *of_cuda,
        *(_package(entry, path) for entry, path in fetched.items() if entry.kind == KIND),
        *(_file(file, lock, fetched) for file in recipe.further_files),
        *_playbooks(),
        Source("config/recipe.yaml", "config", data=recipe_path.read_bytes()),
        Source("config/lock.json", "config", data=lock_path(recipe_path).read_bytes()),
    ]
    licences = licence_files(lock, cache, runtime.path, on_progress)
    page = format_dependencies(lock, f"{recipe.name} {recipe.version}").encode()
    packed += [Source(f"licences/{name}", "licence", data=data) for name, data in (*licences, (PAGE, page))]
    files = tuple(source.file for source in packed if source.kind in ("wheel", "runtime") and source.file)
    return Gathered(tuple(sorted(packed, key=lambda source: source.path)), models, runtime, files, cuda)


def _own_wheel(epoch: int, cache: Cache) -> tuple[Path, Digest]:
    # In a folder named by its bytes: another version of this program may build at the same time.
    with tempfile.TemporaryDirectory(prefix="making-", dir=cache.folder("self")) as folder:
        made = build_appliance_wheel(Path(folder), epoch)
        digest = sha256(made.read_bytes())
        place = cache.folder("self", digest[:16]) / made.name
        made.replace(place)
    return place, digest


@dataclass(frozen=True, slots=True)
class _FetchContext:
    """What fetching and converting a file needs: the recipe's folder, the cache, a callback, and a Python."""

    folder: Path
    cache: Cache
    on_progress: OnProgress
    converter: Path | None

    def fetch(self, entry: Locked) -> Path:
        """The file that an entry of the lock pins."""
        return fetch(entry, self.cache, self.on_progress, recipe_folder=self.folder)


def _check_models(recipe: Recipe, lock: Lock, fetched: dict[Locked, Path], context: _FetchContext) -> None:
    # Also for a lock of an older version of this program, which accepted every file.
    architectures = locked_architectures(lock, context.cache)
    for model in recipe.models:
        entry = _packed(lock, model.name)
        try:
            check_model_file(model, fetched[entry], architectures, _split_parts(model, entry, lock, context))
        except (NotTrustedError, UsageError):
            # Of a file that is not the locked one, that is what is to be said, and the chunker does.
            if measure(fetched[entry]) == (entry.used.sha256, entry.used.size):
                raise


def _packed(lock: Lock, model: str) -> Locked:
    return lock.gguf_of(model) or _find(lock, "model", model)


def _gguf(model: RecipeModel, lock: Lock, context: _FetchContext) -> Path:
    # A model that goes in as it is, is read once: `chunker.store_all` hashes it and compares it with the lock.
    is_read_later = model.quantize is None
    entry = _packed(lock, model.name)
    if model.convert is not None:
        found = converted(entry, context.cache, is_read_later=is_read_later, on_progress=context.on_progress)
        return found or _convert(model, entry, lock, context)
    if split := _split_parts(model, entry, lock, context):
        return split[0]
    if parts := lock.parts_of(model.name):
        return cached(entry.used, context.cache, context.on_progress) or fetch_concatenated(
            entry, [context.fetch(part) for part in parts], context.cache, context.on_progress
        )
    found = local_path(entry, context.cache, context.folder) if is_read_later else None
    return found or context.fetch(entry)


def _split_parts(model: RecipeModel, entry: Locked, lock: Lock, context: _FetchContext) -> tuple[Path, ...]:
    """The files of a split model, which the runtime merges; empty for every other model."""
    return tuple(context.fetch(part) for part in lock.parts_of(model.name)) if model.parts and entry.made else ()


def _convert(model: RecipeModel, entry: Locked, lock: Lock, context: _FetchContext) -> Path:
    sdist = _find(lock, "sdist", RUNTIME)
    inputs = {name: context.fetch(one) for one in lock.entries if (name := input_name(one, model.name))}
    pin, versions = convert(
        conversion_request(model, lock.entries),
        context.fetch(sdist),
        sdist.version,
        inputs,
        context.converter,
        context.cache,
        context.on_progress,
    )
    check_pinned(entry, pin, versions, context.cache)
    return context.cache.path(pin.sha256)


def _runtimes(
    recipe: Recipe, lock: Lock, fetched: dict[Locked, Path], cache: Cache, on_progress: OnProgress
) -> tuple[BuiltRuntime, BuiltRuntime | None, list[Source]]:
    """The runtime, and for graphics processors, where the recipe names some, the backend and all of its wheels."""
    sdist = fetched[_find(lock, "sdist", RUNTIME)]
    entries = {entry.name: entry for entry in lock.of_kind("build-tool")}
    tools = {name: fetch(entry, cache, on_progress) for name, entry in entries.items()}
    recorded = pinned_tools({name: (entries[name].version, entries[name].sha256) for name in ("cmake", "ninja")})
    wheels, folder = ToolWheels(tools["cmake"], tools["ninja"], recorded), cache.folder("runtime")
    choice = recipe.runtime
    runtime = build_runtime(sdist, wheels, RuntimeSpec(choice.llama_cpp_python, choice.cpu), folder, on_progress)
    if not choice.cuda:
        return runtime, None, []
    toolkit = tuple(tools[name] for name in TOOLKIT_NAMES)
    built = build_cuda(sdist, wheels, toolkit, CudaSpec(choice.llama_cpp_python, choice.cuda), folder, on_progress)
    found = [_wheel(built.path.name, built.path, built.sha256)]
    found += [_wheel(entries[name].file, tools[name], entries[name].sha256) for name in HOST_TOOLKIT_NAMES]
    return runtime, built, found


def _find(lock: Lock, kind: str, name: str) -> Locked:
    entry = lock.find(kind, name)
    if entry is None:
        raise UsageError(
            "lock.stale", name, expected=f"a {kind} in the lock", found="none", hint="appliance lock RECIPE"
        )
    return entry


def _model(
    model: RecipeModel, lock: Lock, fetched: dict[Locked, Path], runtime: BuiltRuntime, context: _FetchContext
) -> GatheredModel:
    entry, packed = _find(lock, "model", model.name), _packed(lock, model.name)
    path, pin = fetched[packed], packed.used
    steps = (packed.made,) if packed.made else ()
    cache = context.cache
    if split := _split_parts(model, packed, lock, context):
        merging = MergeRequest(model.name, tuple(part.used for part in lock.parts_of(model.name)))
        pin = merge(merging, split, runtime, cache, context.on_progress)
        path, steps = cache.path(pin.sha256), (merging.step(runtime.sha256),)
    if model.quantize is not None:
        request = QuantisationRequest(model.name, model.quantize, model.allow_requantize)
        pin = quantise(request, path, pin.sha256, runtime, cache, context.on_progress)
        path, steps = cache.path(pin.sha256), (*steps, request.step(runtime.sha256))
    source = Source(f"models/{model.name}/{pin.file}", "model", file=path, sha256=pin.sha256)
    return GatheredModel(model.name, source, Lineage(model.source_text, entry.used.sha256, entry.used.size, steps))


def wheel_path(entry: Locked) -> str:
    """The path of a locked wheel below `wheels/`: in a folder of its Python where not every target takes it."""
    return f"cp{entry.python.replace('.', '')}/{entry.file}" if entry.python else entry.file


def _locked_wheel(entry: Locked, file: Path) -> Source:
    return replace(_wheel(wheel_path(entry), file, entry.sha256), bootstrap=entry.name in PROGRAM)


def _wheel(name: str, file: Path, sha256: Digest | None = None) -> Source:
    return Source(f"wheels/{name}", "wheel", file=file, sha256=sha256, record=wheel_record(file))


def _tool(entry: Locked, path: Path) -> Source:
    return Source(
        f"tools/{entry.file}",
        "tool",
        file=path,
        sha256=entry.sha256,
        record=wheel_record(path),
    )


def _file(file: RecipeFile | GoldenFile, lock: Lock, fetched: dict[Locked, Path]) -> Source:
    entry = _find(lock, "file", file.path)
    if file.kind == "golden-set":
        parse_golden_set(fetched[entry].read_bytes(), f"{file.path} ({file.source})")
    return Source(file.path, file.kind, file=fetched[entry], sha256=entry.used.sha256)


def _package(entry: Locked, path: Path) -> Source:
    return Source(f"os-packages/{entry.system}/{entry.file}", KIND, file=path, sha256=entry.sha256)


def _runtime_wheel(runtime: BuiltRuntime, cache: Cache) -> Source:
    return Source(
        f"runtime/{runtime.path.name}",
        "runtime",
        file=runtime.path,
        sha256=runtime.sha256,
        record=wheel_record(runtime.path),
        members=cached_members(runtime.path, runtime.sha256, LIBRARIES, cache),
    )


def _playbooks() -> list[Source]:
    root = playbooks_path()
    paths = sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [Source(f"playbooks/{path.relative_to(root)}", "playbook", data=path.read_bytes()) for path in paths]
