"""A bundle of a few kilobytes with every kind of file, for tests that need a bundle but no model that answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from appliance.builder.assembly.attestation_writer import attestations, signed_files
from appliance.builder.bare_host.boot_writer import boot_files
from appliance.builder.chunking.bundle_writer import BLOBS, BundleWriter
from appliance.builder.chunking.chunker import Source, store
from appliance.keys.publication import publish
from appliance.keys.tuf_repository import published, read_newest
from appliance.keys.workspace import Workspace, create_development
from bundles.attestation.intoto import STATEMENT_TYPE
from bundles.attestation.required_statements import ML_BOM, PROVENANCE, SBOM, statements_in
from bundles.contents.contents import FORMAT_1_KINDS, Contents, File, Model, Needs, Serve, Target
from bundles.contents.contents_json import write_contents
from bundles.contents.lineage import Lineage
from bundles.gguf.header import GgufHeader
from bundles.oci.layout import LAYOUT_BYTES, LAYOUT_FILE, target_path
from bundles.oci.manifest import write_manifest
from signing.digest import sha256
from signing.strictjson import to_file
from tests.sim.gguf_files import gguf, string_key

# What the statements of a real bundle are called, with as little as they may say.
BILLS = {
    SBOM: b'{"bill":"software"}',
    ML_BOM: b'{"bill":"models"}',
    PROVENANCE: to_file(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": "toy.gguf", "digest": {"sha256": "0" * 64}}],
            "predicateType": PROVENANCE.type,
            "predicate": {"buildDefinition": {}, "runDetails": {}},
        }
    ),
}
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def build_toy(
    workspace_path: Path,
    version: str = "1.0.0",
    note: str = "a note",
    extra: Sequence[Source] = (),
    *,
    model: Path | None = None,
    sealed: bool = False,
    python: str = "3.11",
) -> tuple[Workspace, Path]:
    """A workspace with one bundle that holds a file of every kind, and `extra` files; `model` in place of a tiny one.

    It is for one version of Python.

    Its blobs are writable for an ordinary user, too, so that tests can attack them; `sealed` leaves them as they are.

    Returns:
        The workspace and the bundle's folder.
    """
    workspace, _ = create_development(workspace_path, NOW)
    writer = BundleWriter(workspace.dist / f"toy-{version}")
    if model is None:
        model = workspace_path / "toy.gguf"
        model.write_bytes(gguf([string_key("tokenizer.chat_template", "{{ messages }}")]))
    sources = [
        Source(f"{kind}s/{kind}.txt", kind, data=f"{kind}: {note}\n".encode())
        for kind in FORMAT_1_KINDS
        if kind != "model"
    ]
    sources += [Source(one.path, one.kind, data=data) for one, data in BILLS.items()]
    sources += [Source("models/toy/toy.gguf", "model", file=model), *extra]
    stored = [store(source, writer) for source in sorted(sources, key=lambda item: item.path)]
    packed, header = next((file, header) for file, header in stored if header is not None)
    contents = toy_contents(version, [file for file, _ in stored], packed, header, python)
    config = write_contents(contents)
    writer.put(config)
    manifest = write_manifest(contents, config)
    attested = attestations(contents, manifest, BILLS[PROVENANCE])
    items = [one.item for one in attested]
    publish(workspace, "toy", version, manifest, NOW, items=items, statements=statements_in(contents))
    small = {f"metadata/{name}": data for name, data in read_newest(workspace).items()}
    small[target_path("toy", version, sha256(manifest))] = manifest
    small[LAYOUT_FILE] = LAYOUT_BYTES
    root = published(workspace).walked.root_bytes
    small |= boot_files(workspace, root, contents.files)
    small |= signed_files(workspace, attested, root)
    path = writer.finish(manifest, small)
    return workspace, path if sealed else unsealed(path)


def toy_contents(
    version: str, files: Sequence[File], packed: File, header: GgufHeader, python: str = "3.11"
) -> Contents:
    """The contents of a toy bundle with one model.

    Args:
        files: all files of the bundle.
        packed, header: the model's file and what its header states.
        python: the version of Python that it is for.
    """
    entry = Model(
        name="toy",
        path="models/toy/toy.gguf",
        architecture=header.architecture,
        parameters=header.parameters,
        quantisation=header.quantisation,
        context=16,
        tensors=header.tensors_digest,
        template=header.template_digest,
        licence="Apache-2.0",
        lineage=Lineage("file:toy.gguf", packed.sha256, packed.size),
    )
    return Contents(
        name="toy",
        version=version,
        source_date_epoch=1_700_000_000,
        targets=(Target("debian-12", "x86_64", (python,)),),
        needs=Needs("2.34", "3.4.30", "1.3.13", ("x64",), 1 << 20, 1 << 20),
        serve=Serve(2),
        models=(entry,),
        files=tuple(files),
    )


def unsealed(bundle: Path) -> Path:
    """The same bundle, its blobs writable."""
    (bundle / BLOBS).chmod(0o755)
    for blob in (bundle / BLOBS).iterdir():
        blob.chmod(0o644)
    return bundle
