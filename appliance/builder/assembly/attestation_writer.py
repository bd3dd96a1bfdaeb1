"""Writing signatures in the formats of other programs: the message to sign, and the file around a signature.

Owns the form of OMS model signatures and of the provenance statement about a bundle's manifest. It holds no key: a
ceremony signs `Attestation.message`, and `wrap` writes the file (FORMAT 11).

Rules:
- a message has no date, so the same bundle gives the same messages;
- an OMS signature names every file in the model's folder, sorted, with `method: files`, as `model_signing` does.

Source: OpenSSF model signing specification 1.0; DSSE 1.0; in-toto Statement v1.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from appliance.keys.ceremony import signatures_made
from appliance.keys.signature_requests.request import STATEMENT, Item
from appliance.keys.workspace import Workspace
from bundles.attestation.attestation_check import DSSE, OMS, PROVENANCE_TYPE, attestation_path, model_files
from bundles.attestation.dsse import MAX_ENVELOPE_BYTES, pae
from bundles.attestation.intoto import PAYLOAD_TYPE, STATEMENT_TYPE
from bundles.attestation.oms import MEDIA_TYPE, PREDICATE_TYPE, key_hint
from bundles.attestation.required_statements import PROVENANCE
from bundles.chunks.chunk import Chunk
from bundles.chunks.stream import ChunkStream
from bundles.contents.contents import Contents, Model
from bundles.contents.contents_json import parse_contents
from bundles.medium import Medium
from bundles.oci.layout import ATTESTATIONS, INDEX_FILE, Layout, blob_path
from bundles.oci.manifest import MAX_INDEX_BYTES, parse_index_of_one, parse_manifest
from signing.chain import read_root
from signing.digest import Digest, sha256
from signing.errors import ApplianceError
from signing.keys import PublicKey
from signing.strictjson import Json, load, to_file

MAX_STATEMENT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Attestation:
    """One statement that may be signed by several people; each signature is a file of its own.

    Args:
        subject: the sha256 of what the statement is about.
        format: `oms` or `dsse`.
        payload: the statement.
    """

    subject: Digest
    format: str
    payload: bytes = field(repr=False)

    @property
    def path(self) -> str:
        """The name of the message, the same for every signer."""
        return f"attestations/{self.subject}.{self.format}"

    @property
    def message(self) -> bytes:
        """The bytes to sign."""
        return pae(PAYLOAD_TYPE, self.payload)

    @property
    def item(self) -> Item:
        """The message as an item of a signing request."""
        return Item(STATEMENT, self.path, self.message)

    def wrap(self, key: PublicKey, signature: bytes) -> tuple[str, bytes]:
        """The file of one signature: its path in the bundle, and its bytes.

        Args:
            key: of the signer.
            signature: DER, over `message`.
        """
        path = attestation_path(self.subject, key.key_id, self.format)
        envelope = {
            "payload": _base64(self.payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": "" if self.format == OMS else key.key_id, "sig": _base64(signature)}],
        }
        if self.format == DSSE:
            return path, to_file(envelope)
        material = {"publicKey": {"hint": key_hint(key)}, "tlogEntries": []}
        return path, to_file({"mediaType": MEDIA_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope})


def attestations(contents: Contents, manifest: bytes, provenance: bytes | None) -> tuple[Attestation, ...]:
    """The statements to sign for a bundle: each model, and the provenance of its manifest.

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
        # The file in the bundle cannot name the manifest that lists it, so this statement is another one about that.
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
        workspace: holds the signatures.
        attested: all statements of this bundle.
        root: the newest root file. Signatures by keys that were rotated out are given, too: a reader reports them.
            Those by keys that this root revokes are left out.
    """
    return _wrapped(attested, signatures_made(workspace), root)


def update_bundles(workspace: Workspace, root: bytes, bundles: Iterable[Path]) -> tuple[Path, ...]:
    """Put signatures into the bundles that they are about, and remove all other files of `attestations/`.

    Args:
        workspace: holds the signatures.
        root: as for `signed_files`.
        bundles: folders in `dist/`; a damaged one is left as it is: the next build writes it again.

    Returns:
        The files that were removed.
    """
    made, removed = signatures_made(workspace), []
    for bundle in bundles:
        with suppress(ApplianceError):
            files, medium = _wrapped(_statements(Layout(bundle)), made, root), Medium(bundle)
            for path, data in files.items():
                medium.write(path, data)
            for path in [path for path in medium.walk(ATTESTATIONS) if path not in files]:
                medium.remove(path)
                removed.append(bundle / path)
    return tuple(removed)


def _wrapped(
    attested: Iterable[Attestation], made: Mapping[bytes, Mapping[PublicKey, bytes]], root: bytes
) -> dict[str, bytes]:
    revoked = read_root(root, "root.json").revoked
    return dict(
        one.wrap(key, signature)
        for one in attested
        for key, signature in made.get(one.message, {}).items()
        if key.key_id not in revoked
    )


def _statements(layout: Layout) -> tuple[Attestation, ...]:
    """The statements to sign for a bundle of the workspace, read from the bundle."""
    manifest = _blob(layout, parse_index_of_one(layout.medium.read(INDEX_FILE, MAX_INDEX_BYTES) or b""))
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


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
