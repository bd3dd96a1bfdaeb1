"""From gathered sources to a manifest: the part of a build that gives the same bytes on every machine.

Owns the cutting into chunks, the bills, `contents.json` and the manifest. It must never sign, read a clock, or give a
bundle its name: `assembler` does that, and `appliance.builder.compare.rebuild` compares two results of this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from appliance.builder.bills.bill_inputs import BillFacts, Gathered, GatheredModel
from appliance.builder.bills.writer import write_bills
from appliance.builder.cache.content_store import Cache
from appliance.builder.chunking.bundle_writer import BundleWriter
from appliance.builder.chunking.chunker import DIFFERS, Stored, store_all
from appliance.builder.lock.lockfile import Lock, lock_hint
from appliance.builder.models.chat_template import lint_templates
from appliance.builder.models.model_file import check_context
from appliance.builder.models.serving_memory import serving_bytes
from appliance.builder.recipe.recipe import Recipe, RecipeModel
from appliance.builder.runtime.cuda import DRIVER
from appliance.builder.wheels.reader import unpacked_bytes
from bundles.attestation.required_statements import PROVENANCE
from bundles.contents.contents import Contents, File, Model, Needs, Serve, Target
from bundles.contents.contents_json import write_contents
from bundles.contents.format_2 import SitePermission, TemplateAcceptance
from bundles.gguf.header import GgufHeader
from bundles.gguf.kind import RERANK, task_of
from bundles.gguf.memory import Workload
from bundles.oci.manifest import write_manifest
from bundles.progress import OnProgress
from signing.digest import Digest
from signing.errors import DamagedError


@dataclass(frozen=True, slots=True)
class Prepared:
    """A recipe, its path, its lock, and all files of its bundle: verified, searched for secrets, and proved."""

    recipe: Recipe
    recipe_path: Path
    lock: Lock
    gathered: Gathered


@dataclass(frozen=True, slots=True)
class Packed:
    """The contents, the bytes of the manifest that lists them, and those of the provenance."""

    contents: Contents
    manifest: bytes
    provenance: bytes | None


def pack(prepared: Prepared, writer: BundleWriter, cache: Cache, on_progress: OnProgress) -> Packed:
    """Put every blob of a bundle but its manifest into a writer; the bundle is not finished here.

    Args:
        prepared: of `assembler.prepare`.
        writer: of the bundle that is being written.
        cache: a damaged source is removed from it.
        on_progress: called with bytes read.

    Raises:
        UsageError: a model is asked for more context than it has.
        DamagedError: a source differs from the lock.
        NotTrustedError: a model that the parser, or a template that the linter refuses.
        ApplianceError: a source vanished, or the disk is full.
    """
    recipe, lock, gathered = prepared.recipe, prepared.lock, prepared.gathered
    stored = _store(prepared, writer, cache, on_progress)
    files = tuple(file for file, _ in stored)
    headers = {file.path: header for file, header in stored if header is not None}
    pairs = zip(recipe.models, gathered.models, strict=True)
    models = tuple(_model(model, made, headers[made.source.path]) for model, made in pairs)
    bills = write_bills(BillFacts(recipe, lock, gathered, files, models, headers))
    files = tuple(sorted((*files, *(bill for bill, _ in store_all(bills, writer))), key=lambda file: file.path))
    contents = _contents(recipe, lock.source_date_epoch, gathered, files, models, headers)
    config = write_contents(contents)
    writer.put(config)
    manifest = write_manifest(contents, config)
    provenance = next((bill.data for bill in bills if bill.path == PROVENANCE.path), None)
    return Packed(contents, manifest, provenance)


def _store(prepared: Prepared, writer: BundleWriter, cache: Cache, on_progress: OnProgress) -> list[Stored]:
    sources = prepared.gathered.sources
    try:
        return store_all(sources, writer, on_progress)
    except DamagedError as error:
        # A model is hashed for the first time here. A damaged one is removed from the cache, to be fetched again.
        wrong = [source for source in sources if source.path == error.subject and source.sha256]
        for source in wrong if error.code == DIFFERS else ():
            if source.sha256 is not None and source.file == cache.path(source.sha256):
                cache.discard(source.sha256)
            else:
                lock = f"{lock_hint(prepared.recipe_path)} --upgrade"
                error.hint = f"restore the file that was locked; or, where the change is intended: {lock}"
        raise


def _contents(
    recipe: Recipe,
    epoch: int,
    gathered: Gathered,
    files: tuple[File, ...],
    models: tuple[Model, ...],
    headers: dict[str, GgufHeader],
) -> Contents:
    slots = recipe.serve.slots
    ram = serving_bytes((headers[model.path], Workload(model.context, slots)) for model in models)
    return Contents(
        name=recipe.name,
        version=recipe.version,
        source_date_epoch=epoch,
        targets=tuple(Target(target.os, target.arch, tuple(target.python)) for target in recipe.targets),
        needs=Needs(
            glibc=gathered.runtime.glibc,
            glibcxx=gathered.runtime.glibcxx,
            cxxabi=gathered.runtime.cxxabi,
            cpu_variants=gathered.runtime.variants,
            ram_bytes=ram,
            disk_bytes=sum(file.size for file in files) + sum(map(unpacked_bytes, gathered.wheels)),
            gpu_driver=DRIVER if recipe.runtime.cuda else None,
        ),
        serve=Serve(slots=recipe.serve.slots),
        models=models,
        files=files,
        site=SitePermission(tuple(sorted(set(recipe.site.kinds)))) if recipe.site else None,
    )


def _model(model: RecipeModel, made: GatheredModel, header: GgufHeader) -> Model:
    lint_templates(header, made.source.path, model.accepted_template)
    task = task_of(header)
    check_context(model, header, task)
    return Model(
        name=model.name,
        path=made.source.path,
        architecture=header.architecture,
        parameters=header.parameters,
        quantisation=header.quantisation,
        context=model.context,
        tensors=header.tensors_digest,
        template=header.template_digest,
        licence=model.licence,
        lineage=made.lineage,
        embedding=header.embedding,
        # A bundle without a stated task is format 1, which has no word for ranking.
        task=RERANK if task == RERANK else model.task or "",
        template_accepted=_acceptance(model),
        golden=tuple(file.path for file in model.golden_files),
    )


def _acceptance(model: RecipeModel) -> TemplateAcceptance | None:
    if model.template is None:
        return None
    accepted = model.template.accepted
    return TemplateAcceptance(accepted.by, accepted.date, Digest(accepted.sha256))
