"""From a recipe and its lock to a signed bundle.

Owns the order: gather, cut into chunks, write the bills, `contents.json` and the manifest, sign, give the bundle its
name. The same recipe and lock give the same manifest digest; only metadata carries times.

Rules:
- the bundle appears under its name when it is complete; once enough people have signed it is opened through the door
  of users, and until then no host accepts it;
- nothing is written before the closure of every target has been proved (`appliance.build.proof`);
- one build at a time in a workspace: two would sign the same version;
- building again changes nothing that is right, and puts back what is damaged.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance.build.attest import attestations, signed_files
from appliance.build.billfacts import Facts
from appliance.build.bills import write_bills
from appliance.build.boot import ask_boot, boot_of
from appliance.build.cache import Cache
from appliance.build.closure import host_requires
from appliance.build.coverage import check_covers
from appliance.build.gather import Gathered, GatheredModel, gather
from appliance.build.lockfile import Lock, lock_path, read_lock
from appliance.build.memory import serving_bytes
from appliance.build.proof import prove
from appliance.build.readme import write_readme
from appliance.build.recipe import Recipe, RecipeModel, load_recipe
from appliance.build.runtime.cuda import DRIVER
from appliance.build.secrets import check_secrets
from appliance.build.store import DIFFERS, Stored, store_all
from appliance.build.template import lint_templates
from appliance.build.writer import BundleWriter
from appliance.keys.publication import publish
from appliance.keys.repository import published, published_manifest, read_newest
from appliance.keys.request import Request
from appliance.keys.workspace import Workspace
from bundles.bundle import Bundle, open_bundle
from bundles.contents import Contents, File, Model, Needs, Serve, Target
from bundles.contents_json import write_contents
from bundles.gguf import GgufHeader
from bundles.layout import LAYOUT_BYTES, LAYOUT_FILE, target_path
from bundles.manifest import write_manifest
from bundles.progress import OnProgress
from bundles.statements import PROVENANCE, REQUIRED
from signing.digest import Digest, sha256
from signing.errors import DamagedError, UsageError
from signing.floors import Floors
from signing.verified import Verified

CONTEXT_UNKNOWN = 0


@dataclass(frozen=True, slots=True)
class Built:
    """A bundle that was built.

    Args:
        path: where it lies.
        manifest: the digest of its manifest.
        contents: what is in it.
        bundle: it, as hosts verify it; None while it waits for signatures.
        request: what waits for signatures, or was signed just now; None where it was published before.
        files_written: how many files had to be written.
        replaced: the manifest that this version was published with before, where it was another.
    """

    path: Path
    manifest: Digest
    contents: Contents
    bundle: Verified[Bundle] | None
    request: Request | None
    files_written: int
    replaced: Digest | None


def assemble(
    recipe_path: Path,
    workspace: Workspace,
    cache: Cache,
    now: datetime,
    on_progress: OnProgress,
    install_by: str = "",
) -> Built:
    """Build the bundle of a recipe.

    Args:
        recipe_path: the recipe; its lock lies beside it.
        workspace: holds the keys, and gets the bundle in `dist/`.
        cache: of downloads and runtimes.
        now: the time that the signer states, in UTC.
        on_progress: called with bytes and steps.
        install_by: the last day on which it is meant to be installed, as metadata spells times; empty: not said.

    Raises:
        UsageError: the recipe or lock is wrong, or the lock does not cover the recipe.
        HostUnfitError: this machine cannot prove the closure of a target.
        ApplianceError: of any part; nothing half-made carries the bundle's name.
    """
    recipe, lock = load_recipe(recipe_path), read_lock(lock_path(recipe_path))
    check_covers(lock, recipe, recipe_path, host_requires())
    gathered = gather(recipe, recipe_path, lock, cache, on_progress)
    check_secrets(gathered.sources, _folders(workspace), cache.folder("searched"))
    prove(recipe, gathered.sources, cache, on_progress)
    with workspace.locked():
        writer = BundleWriter(workspace.dist / f"{recipe.name}-{recipe.version}")
        stored = _store(gathered, writer, cache, on_progress)
        return _write(recipe, lock, gathered, stored, writer, workspace, now, install_by)


def _store(gathered: Gathered, writer: BundleWriter, cache: Cache, on_progress: OnProgress) -> list[Stored]:
    try:
        return store_all(gathered.sources, writer, on_progress)
    except DamagedError as error:
        # A model is hashed for the first time here. The cache forgets what is wrong, so that it is fetched anew.
        wrong = [source.sha256 for source in gathered.sources if source.path == error.subject and source.sha256]
        if error.code == DIFFERS:
            for digest in wrong:
                cache.discard(digest)
        raise


def _folders(workspace: Workspace) -> tuple[str, ...]:
    # What tells who built it, and where: two builders could not make the same bytes.
    return str(Path.home()), str(workspace.path.resolve())


def _write(
    recipe: Recipe,
    lock: Lock,
    gathered: Gathered,
    stored: list[Stored],
    writer: BundleWriter,
    workspace: Workspace,
    now: datetime,
    install_by: str,
) -> Built:
    files = tuple(file for file, _ in stored)
    headers = {file.path: header for file, header in stored if header is not None}
    pairs = zip(recipe.models, gathered.models, strict=True)
    models = tuple(_model(model, made, headers[made.source.path]) for model, made in pairs)
    bills = write_bills(Facts(recipe, lock, gathered, files, models, headers))
    files = tuple(sorted((*files, *(bill for bill, _ in store_all(bills, writer))), key=lambda file: file.path))
    contents = _contents(recipe, lock.source_date_epoch, gathered, files, models, headers)
    config = write_contents(contents)
    writer.put(config)
    manifest = write_manifest(contents, config)
    replaced = published_manifest(workspace, recipe.name, recipe.version)
    provenance = next((bill.data for bill in bills if bill.path == PROVENANCE.path), None)
    attested = attestations(contents, manifest, provenance)
    root = published(workspace).walked.root_bytes
    items = [*ask_boot(workspace, root, files), *(one.item for one in attested)]
    request = publish(
        workspace,
        recipe.name,
        recipe.version,
        manifest,
        now,
        items=items,
        statements=REQUIRED,
        install_by=install_by,
    )
    metadata = read_newest(workspace, request, now)
    more = boot_of(workspace, root, files) | signed_files(workspace, attested)
    path = writer.finish(manifest, _small_files(contents, manifest, metadata, more))
    found = None
    if request is None or request.is_complete:
        found = open_bundle(path, workspace.root_file.read_bytes(), Floors(), now)
    digest = sha256(manifest)
    return Built(path, digest, contents, found, request, writer.written, None if replaced == digest else replaced)


def _contents(
    recipe: Recipe,
    epoch: int,
    gathered: Gathered,
    files: tuple[File, ...],
    models: tuple[Model, ...],
    headers: dict[str, GgufHeader],
) -> Contents:
    ram = sum(serving_bytes(headers[model.path], model.context, recipe.serve.slots) for model in models)
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
            disk_bytes=sum(file.size for file in files) + _unpacked_bytes(gathered.wheels),
            gpu_driver=DRIVER if recipe.runtime.cuda else None,
        ),
        serve=Serve(slots=recipe.serve.slots),
        models=models,
        files=files,
    )


def _model(model: RecipeModel, made: GatheredModel, header: GgufHeader) -> Model:
    lint_templates(header, made.source.path)
    if header.context != CONTEXT_UNKNOWN and model.context > header.context:
        raise UsageError(
            "recipe.context",
            f"model {model.name}: context",
            expected=f"at most {header.context} tokens, what the model was trained for",
            found=str(model.context),
            hint="lower `context` in the recipe",
        )
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
    )


def _unpacked_bytes(wheels: tuple[Path, ...]) -> int:
    total = 0
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            total += sum(info.file_size for info in archive.infolist())
    return total


def _small_files(
    contents: Contents, manifest: bytes, metadata: dict[str, bytes], more: dict[str, bytes]
) -> dict[str, bytes]:
    files = {**more, **{f"metadata/{name}": data for name, data in metadata.items()}}
    files[target_path(contents.name, contents.version, sha256(manifest))] = manifest
    files[LAYOUT_FILE] = LAYOUT_BYTES
    files["README.txt"] = write_readme(contents)
    return files
