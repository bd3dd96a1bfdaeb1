"""What `appliance plan` plans for: the models of a SOURCE, the workload of each, and a runtime that can measure.

Owns how a GGUF file, a recipe, a bundle and a stick are distinguished. A bundle's chain of trust is verified before any
model of it is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.builder.cache.content_store import Cache, cache_root
from appliance.builder.models.architectures import cached_architectures
from appliance.cli.bundle_argument import open_named_media
from appliance.cli.planner.runtime_source import runtime_of_release
from appliance.host.layout.prefix import Prefix
from appliance.host.models.model_head import ModelHead, head_of_bundle, head_of_file, is_model_file
from appliance.host.release.held_chunks import held_chunks
from appliance.host.release.held_source import HeldSource
from appliance.host.runtime.unpacked import UnpackedRuntime, of_bundle, of_wheel
from bundles.bundle import Bundle
from bundles.chunks.source import Seeds
from bundles.contents.contents import Contents, Model
from bundles.gguf.kind import judge_kind, most_context
from bundles.gguf.memory import Workload
from bundles.parity.streams import read_parity
from bundles.stick.media_set import MediaSet, Waiting
from signing.errors import ApplianceError, NextStickError, UsageError
from signing.verified import Verified

DEFAULT_SLOTS = 4
MAX_DEFAULT_CONTEXT = 8192
"""The workload of a GGUF file, which states none itself."""
UNPACKED_COPIES = 2
"""Room for an unpacked runtime: its files, and a folder beside them for one CPU variant."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """The options of the command line; None where one was not given."""

    context: int | None
    slots: int | None
    kv_type: str
    prefix: Path | None
    trust: Path | None
    workspace: Path | None
    report: Callable[[str], None]
    """Gets what people should know of how a bundle was judged, one line each."""
    select: str = ""
    waiting: Waiting | None = None

    def load(self, context: int, slots: int) -> Workload:
        """A model's workload: what the source states, unless an option sets it."""
        return Workload(self.context or context, self.slots or slots, self.kv_type)


@dataclass(frozen=True, slots=True)
class PlanSource:
    """Models, each with its workload, and an unpacked runtime, or the reason why there is none.

    Args:
        parity_bytes: what the parity adds to a set of media, as it states itself; 0 without one.
        bundle, media: where a bundle was named: verified, and the media that hold it.
    """

    models: tuple[tuple[ModelHead, Workload], ...]
    runtime: UnpackedRuntime | str
    parity_bytes: int = 0
    bundle: Verified[Bundle] | None = None
    media: MediaSet | None = None


def read_source(paths: Sequence[Path], options: PlanOptions, scratch: Path) -> PlanSource:
    """Read the models of a SOURCE.

    Args:
        paths: one file or folder that a person named, or several media; untrusted.
        options: of the command line.
        scratch: a private folder that outlives the result.

    Raises:
        UsageError: it is none of the four, no engine could serve it, or a model's file is not on this machine.
        DamagedError, NotTrustedError: of a bundle or a GGUF.
        NextStickError: the head of a model is on a stick that is not here.
    """
    path = paths[0]
    if len(paths) > 1 or path.is_dir():
        return _read_bundle(paths, options, scratch)
    if is_model_file(path):
        return _read_model(path, options, scratch)
    if not path.exists():
        raise UsageError(
            "plan.source", str(path), expected="a GGUF, a recipe, a bundle or a stick", found="no such file or folder"
        )
    from appliance.cli.planner.plan_builder import (
        read_recipe,
    )  # a host that plans a bundle needs nothing of the builder

    return PlanSource(read_recipe(path, options.load), _find_runtime(options, scratch))


def _read_model(path: Path, options: PlanOptions, scratch: Path) -> PlanSource:
    head = head_of_file(path, path.name)
    task = judge_kind(head.header, head.data, path.name, _architectures())
    context = min(most_context(head.header, task), MAX_DEFAULT_CONTEXT)
    return PlanSource(((head, options.load(context, DEFAULT_SLOTS)),), _find_runtime(options, scratch))


def _architectures() -> frozenset[str] | None:
    try:
        return cached_architectures(Cache(cache_root(os.environ)))
    except ApplianceError:  # a user without a home folder has no cache
        return None


def _read_bundle(paths: Sequence[Path], options: PlanOptions, scratch: Path) -> PlanSource:
    media = open_named_media(paths, options.trust, options.prefix, options.workspace, options.report, options.waiting)
    found, source = media.select(options.select), media.source
    bundle = found.value
    contents = bundle.contents
    if not contents.models:
        raise UsageError("plan.no-model", str(paths[0]), expected="at least one model", found="none")
    # A delta leaves out what its host holds.
    seeds = held_chunks(Prefix.at(options.prefix or Path("/"))) if source.missing(bundle) else {}
    models = tuple(
        (_head(source, seeds, contents, model), options.load(model.context, contents.serve.slots))
        for model in contents.models
    )
    runtime = _bundled_runtime(HeldSource(source, seeds), contents, scratch)
    for notice in source.notices:
        options.report(f"warning: {notice}")
    parities = [parity.size_bytes for layout in source.layouts if (parity := read_parity(layout))]
    return PlanSource(models, runtime, max(parities, default=0), found, source)


def _head(source: MediaSet, seeds: Seeds, contents: Contents, model: Model) -> ModelHead:
    while True:
        try:
            return head_of_bundle(HeldSource(source, seeds), contents, model)
        except NextStickError:
            missing = [chunk for chunk in contents.by_path[model.path].chunks if not source.holds(chunk)]
            source.wait_for(([chunk for chunk in missing if chunk.sha256 not in seeds] or missing)[:1])


def _bundled_runtime(source: HeldSource, contents: Contents, scratch: Path) -> UnpackedRuntime | str:
    files = contents.of_kind("runtime")
    if not files:
        return "the bundle holds none"
    if not all(source.holds(chunk) for file in files for chunk in file.chunks):
        return "it is on a stick that is not here"
    status, size = os.statvfs(scratch), sum(member.size for file in files for member in file.members)
    if status.f_bavail * status.f_frsize < UNPACKED_COPIES * size:
        return f"{scratch.parent} has too little room to unpack it"
    return of_bundle(source, contents, scratch)


def _find_runtime(options: PlanOptions, scratch: Path) -> UnpackedRuntime | str:
    """The runtime of the installed release, or one that was built on this machine."""
    try:
        found = runtime_of_release(options.prefix, scratch)
    except (ApplianceError, OSError) as error:
        return f"the installed release cannot be used: {error}"
    if found is not None:
        return found.runtime
    from appliance.cli.planner.plan_builder import (
        built_wheel,
    )  # a host that has a release needs nothing of the builder

    wheel = built_wheel()
    return of_wheel(wheel, scratch) if wheel else "nothing is installed, and none was built here"
