"""From a recipe and its lock to a signed bundle.

Owns the order: gather, cut into chunks, write the bills, `contents.json` and the manifest, sign, give the bundle its
name. The same recipe and lock give the same manifest digest; only metadata has times.

Rules:
- the bundle appears under its name when it is complete; no host accepts it before enough people have signed;
- a bundle with enough signatures is verified here as a host verifies it;
- nothing is written before the closure of every target has been proved (`appliance.builder.proof.closure_proof`), and
  the bundle's own engine has answered with every model (`appliance.builder.proof.model_trial`);
- one build at a time in a workspace: two would sign the same version;
- a second build changes no file that is right, and restores damaged ones.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from appliance.builder.assembly.attestation_writer import attestations, signed_files
from appliance.builder.assembly.inputs import gather
from appliance.builder.assembly.packing import Packed, Prepared, pack
from appliance.builder.assembly.readme import write_readme
from appliance.builder.assembly.secret_scan import check_secrets
from appliance.builder.bare_host.boot_writer import boot_files, request_boot
from appliance.builder.bare_host.verifier_format import format_read_by
from appliance.builder.bills.bill_inputs import Gathered
from appliance.builder.bills.dependencies import Dependency, dependencies, unmaintained
from appliance.builder.cache.content_store import Cache, home_folder
from appliance.builder.chunking.bundle_writer import BundleWriter
from appliance.builder.lock.lockfile import RUNTIME, lock_path, read_lock
from appliance.builder.proof.closure_proof import prove
from appliance.builder.proof.model_trial import TrialModel, try_models
from appliance.builder.recipe.reader import load_recipe
from appliance.builder.recipe.recipe import Recipe
from appliance.builder.resolve.coverage import check_covers
from appliance.builder.resolve.wheel_closure import host_requires
from appliance.builder.runtime.build_job import compilation_notice
from appliance.builder.runtime.build_types import RuntimeSpec
from appliance.keys.publication import publish
from appliance.keys.signature_requests.request import Request
from appliance.keys.tuf_repository import published, published_manifest, read_newest
from appliance.keys.workspace import Workspace
from bundles.attestation.required_statements import REQUIRED
from bundles.bare_host.boot_check import VERIFIER_FILE
from bundles.bundle import Bundle, open_bundle
from bundles.contents.contents import Contents
from bundles.oci.layout import BOOT, LAYOUT_BYTES, LAYOUT_FILE, target_path
from bundles.progress import OnProgress
from signing.digest import Digest, sha256
from signing.floors import Floors
from signing.verified import Verified


@dataclass(frozen=True, slots=True)
class Built:
    """A bundle that was built.

    Args:
        path: of its folder.
        manifest: the digest of its manifest.
        contents: of the bundle.
        bundle: verified as a host verifies it; None while it waits for signatures.
        request: for its signatures, complete or not; None where it was published before.
        files_written: how many files had to be written.
        replaced: the manifest that this version was published with before, where it was another.
        boot_reads: the newest format that the verifier in its `BOOT/` reads; 0 where it has no `BOOT/`.
        unmaintained: the dependencies whose projects have released nothing for a long time.
    """

    path: Path
    manifest: Digest
    contents: Contents
    bundle: Verified[Bundle] | None
    request: Request | None
    files_written: int
    replaced: Digest | None
    boot_reads: int = 0
    unmaintained: tuple[Dependency, ...] = ()


def assemble(
    recipe_path: Path,
    workspace: Workspace,
    cache: Cache,
    now: datetime,
    on_progress: OnProgress,
    install_by: str = "",
    converter: Path | None = None,
) -> Built:
    """Build the bundle of a recipe.

    Args:
        recipe_path: the recipe; its lock lies beside it.
        workspace: holds the keys, and gets the bundle in `dist/`.
        cache: of downloads and runtimes.
        now: the time of the signatures, in UTC.
        on_progress: called with bytes and steps.
        install_by: the last day on which it is meant to be installed, as a time of the metadata; empty for no such day.
        converter: a Python that has what llama.cpp's converter imports, for a converted model that is not in the cache.

    Raises:
        UsageError: the recipe or lock is wrong, or the lock does not cover the recipe.
        HostUnfitError: this machine cannot prove the closure of a target.
        ApplianceError: of any part; no incomplete bundle has the bundle's name.
    """
    prepared = prepare(recipe_path, workspace, cache, on_progress, converter)
    recipe = prepared.recipe
    with workspace.locked():
        writer = BundleWriter(workspace.dist / f"{recipe.name}-{recipe.version}")
        built = _publish(pack(prepared, writer, cache, on_progress), writer, workspace, now, install_by)
    return replace(built, unmaintained=unmaintained(dependencies(prepared.lock), now.date()))


def compilation_reason(recipe_path: Path, cache: Cache, search_path: str) -> str:
    """One line about why a build of this recipe compiles the runtime; empty where it does not.

    Args:
        recipe_path: the recipe; its lock lies beside it.
        cache: of built runtimes.
        search_path: to find the compiler.

    Raises:
        UsageError, HostUnfitError: as `assemble`, before it fetches anything.
    """
    recipe, lock = load_recipe(recipe_path), read_lock(lock_path(recipe_path))
    check_covers(lock, recipe, recipe_path, host_requires())
    sdist, tools = lock.find("sdist", RUNTIME), [lock.find("build-tool", name) for name in ("cmake", "ninja")]
    if sdist is None or None in tools:
        return ""
    pinned = {tool.name: (tool.version, tool.sha256) for tool in tools if tool is not None}
    spec = RuntimeSpec(recipe.runtime.llama_cpp_python, recipe.runtime.cpu)
    return compilation_notice(sdist.sha256, pinned, spec, cache.folder("runtime"), search_path)


def prepare(
    recipe_path: Path, workspace: Workspace, cache: Cache, on_progress: OnProgress, converter: Path | None = None
) -> Prepared:
    """Gather everything for a bundle, search it for secrets, prove its closure, and try its models. Nothing is written.

    Args, Raises:
        As `assemble`.
    """
    recipe, lock = load_recipe(recipe_path), read_lock(lock_path(recipe_path))
    check_covers(lock, recipe, recipe_path, host_requires())
    gathered = gather(recipe, recipe_path, lock, cache, on_progress, converter)
    check_secrets(gathered.sources, _folders(workspace), cache.folder("searched"))
    prove(recipe, gathered.sources, cache, on_progress)
    try_models(recipe, _models(recipe, gathered), gathered.runtime, gathered.sources, cache, on_progress)
    return Prepared(recipe, recipe_path, lock, gathered)


def _models(recipe: Recipe, gathered: Gathered) -> tuple[TrialModel, ...]:
    found = []
    for model, made in zip(recipe.models, gathered.models, strict=True):
        source = made.source
        assert source.file is not None
        assert source.sha256 is not None
        found.append(TrialModel(model.name, source.path, source.file, source.sha256, model.context))
    return tuple(found)


def _folders(workspace: Workspace) -> tuple[str, ...]:
    # Folders that show who built it, and where: with them two builders could not make the same bytes.
    return str(home_folder(os.environ) or ""), str(workspace.path.resolve())


def _publish(packed: Packed, writer: BundleWriter, workspace: Workspace, now: datetime, install_by: str) -> Built:
    contents, manifest = packed.contents, packed.manifest
    name, version, files = contents.name, contents.version, contents.files
    replaced = published_manifest(workspace, name, version)
    attested = attestations(contents, manifest, packed.provenance)
    root = published(workspace).walked.root_bytes
    items = [*request_boot(workspace, root, contents), *(one.item for one in attested)]
    request = publish(workspace, name, version, manifest, now, items=items, statements=REQUIRED, install_by=install_by)
    metadata = read_newest(workspace, request, now)
    boot = boot_files(workspace, root, files)
    more = boot | signed_files(workspace, attested, root)
    path = writer.finish(manifest, _small_files(contents, manifest, metadata, more))
    found = None
    if request is None or request.is_complete:
        found = open_bundle(path, workspace.root_file.read_bytes(), Floors(), now)
    digest = sha256(manifest)
    verifier = boot.get(f"{BOOT}/{VERIFIER_FILE}")
    return Built(
        path,
        digest,
        contents,
        found,
        request,
        writer.written,
        None if replaced == digest else replaced,
        format_read_by(verifier) if verifier else 0,
    )


def _small_files(
    contents: Contents, manifest: bytes, metadata: dict[str, bytes], more: dict[str, bytes]
) -> dict[str, bytes]:
    files = {**more, **{f"metadata/{name}": data for name, data in metadata.items()}}
    files[target_path(contents.name, contents.version, sha256(manifest))] = manifest
    files[LAYOUT_FILE] = LAYOUT_BYTES
    files["README.txt"] = write_readme(contents)
    return files
