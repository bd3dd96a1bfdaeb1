"""Writing signatures in other people's formats: what is to be signed, and the file around a signature.

Owns the spelling of OMS model signatures and of the provenance statement about a bundle's manifest. It holds no key:
a ceremony signs `Attestation.message`, and `wrap` makes the file (FORMAT 11).

Rules:
- nothing in a message is dated, so the same bundle gives the same messages;
- an OMS signature names every file in the model's folder, sorted, with `method: files`: what `model_signing` writes.

Source: OpenSSF model signing specification 1.0; DSSE 1.0; in-toto Statement v1.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from appliance.keys.ceremony import signatures_made
from appliance.keys.requests.request import STATEMENT, Item
from appliance.keys.workspace import Workspace
from bundles.attestation.attestations import DSSE, OMS, PROVENANCE_TYPE, attestation_path, model_files
from bundles.attestation.dsse import MAX_ENVELOPE_BYTES, pae
from bundles.attestation.intoto import PAYLOAD_TYPE, STATEMENT_TYPE
from bundles.attestation.oms import MEDIA_TYPE, PREDICATE_TYPE, key_hint
from bundles.attestation.required_statements import PROVENANCE
from bundles.chunk_stream import ChunkStream
from bundles.contents.document import parse_contents
from bundles.contents.model import Chunk, Contents, Model
from bundles.medium import Medium
from bundles.oci.layout import ATTESTATIONS, INDEX_FILE, Layout, blob_path
from bundles.oci.manifest import MAX_INDEX_BYTES, parse_index, parse_manifest
from signing.chain import read_root
from signing.digest import Digest, sha256
from signing.errors import ApplianceError
from signing.keys import PublicKey
from signing.strictjson import Json, load, to_file

MAX_STATEMENT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Attestation:
    """One statement that may be signed by several people, each in a file of their own.

    Args:
        subject: the sha256 that the statement is about.
        format: `oms` or `dsse`.
        payload: the statement.
    """

    subject: Digest
    format: str
    payload: bytes = field(repr=False)

    @property
    def path(self) -> str:
        """A name for the message, the same for every signer."""
        return f"attestations/{self.subject}.{self.format}"

    @property
    def message(self) -> bytes:
        """The bytes that get signed."""
        return pae(PAYLOAD_TYPE, self.payload)

    @property
    def item(self) -> Item:
        """The message as a ceremony asks for its signatures."""
        return Item(STATEMENT, self.path, self.message)

    def wrap(self, key: PublicKey, signature: bytes) -> tuple[str, bytes]:
        """The file of one signature: its path in the bundle, and its bytes.

        Args:
            key: whose signature it is.
            signature: DER, over `message`.
        """
        path = attestation_path(self.subject, key.key_id, self.format)
        envelope = {
            "payload": _spell(self.payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": "" if self.format == OMS else key.key_id, "sig": _spell(signature)}],
        }
        if self.format == DSSE:
            return path, to_file(envelope)
        material = {"publicKey": {"hint": key_hint(key)}, "tlogEntries": []}
        return path, to_file({"mediaType": MEDIA_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope})


def attestations(contents: Contents, manifest: bytes, provenance: bytes | None) -> tuple[Attestation, ...]:
    """What is to be signed for a bundle: each model, and the provenance of its manifest.

    Args:
        contents: of the bundle.
        manifest: its OCI manifest.
        provenance: the bundle's provenance statement, whose subjects are files; None where it has none.

    Raises:
        ApplianceError: the provenance does not fit into a file of `attestations/`.
    """
    found = [_of_model(contents, model) for model in contents.models]
    if provenance is not None:
        statement = load(provenance, "provenance", MAX_STATEMENT_BYTES)
        # A file of the bundle cannot name the manifest that names it, so the statement is made anew about that.
        name, digest = f"{contents.name}-{contents.version}", sha256(manifest)
        payload = _statement(name, digest, PROVENANCE_TYPE, statement["predicate"])
        if len(payload) * 4 > MAX_ENVELOPE_BYTES * 3 - 4096:
            raise ApplianceError(
                "attestation.too-long",
                "provenance",
                expected=f"a file of at most {MAX_ENVELOPE_BYTES} bytes around it",
                found=f"{len(payload)} bytes",
            )
        found.append(Attestation(digest, DSSE, payload))
    return tuple(found)


def signed_files(workspace: Workspace, attested: Iterable[Attestation], root: bytes) -> dict[str, bytes]:
    """The files of `attestations/` for a bundle, by path.

    Args:
        workspace: where people signed.
        attested: all that is to be signed for this bundle.
        root: the newest root file. A host that pins it does not know a key that was retired before: only signatures by
            those who may sign targets by it are given.
    """
    return _wrapped(attested, signatures_made(workspace), root)


def carry(workspace: Workspace, root: bytes, bundles: Iterable[Path]) -> None:
    """Put what people have signed into the bundles that they signed it about, and take out all else.

    Args:
        workspace: where they signed.
        root: as for `signed_files`.
        bundles: folders in `dist/`; a damaged one is left as it is, for the build that makes it anew.
    """
    made = signatures_made(workspace)
    for bundle in bundles:
        with suppress(ApplianceError):
            files, medium = _wrapped(_asked_for(Layout(bundle)), made, root), Medium(bundle)
            for path, data in files.items():
                medium.write(path, data)
            for path in [path for path in medium.walk(ATTESTATIONS) if path not in files]:
                (bundle / path).unlink()


def _wrapped(
    attested: Iterable[Attestation], made: Mapping[bytes, Mapping[PublicKey, bytes]], root: bytes
) -> dict[str, bytes]:
    people = read_root(root, "root.json").roles["targets"].keys
    return dict(
        one.wrap(key, signature)
        for one in attested
        for key, signature in made.get(one.message, {}).items()
        if key.key_id in people
    )


def _asked_for(layout: Layout) -> tuple[Attestation, ...]:
    """What is to be signed for a bundle of the workspace, read from it."""
    manifest = _blob(layout, parse_index(layout.medium.read(INDEX_FILE, MAX_INDEX_BYTES) or b""))
    named = parse_manifest(manifest)
    contents = parse_contents(_blob(layout, Chunk(named.contents, named.contents_size)))
    file = contents.by_path.get(PROVENANCE.path)
    return attestations(contents, manifest, ChunkStream(layout, file).read() if file else None)


def _blob(layout: Layout, blob: Chunk) -> bytes:
    return layout.medium.read(blob_path(blob.sha256), blob.size) or b""


def _of_model(contents: Contents, model: Model) -> Attestation:
    files = model_files(contents, model)
    digest = sha256(b"".join(bytes.fromhex(one) for one in files.values()))
    predicate = {
        "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
        "resources": [{"name": name, "algorithm": "sha256", "digest": one} for name, one in files.items()],
    }
    return Attestation(digest, OMS, _statement(model.name, digest, PREDICATE_TYPE, predicate))


def _statement(name: str, digest: Digest, predicate_type: str, predicate: Mapping[str, Json]) -> bytes:
    subject = [{"name": name, "digest": {"sha256": digest}}]
    return to_file(
        {"_type": STATEMENT_TYPE, "subject": subject, "predicateType": predicate_type, "predicate": predicate}
    )


def _spell(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
