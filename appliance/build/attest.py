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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from appliance.keys.ceremony import signatures_over
from appliance.keys.request import STATEMENT, Item, Request
from appliance.keys.workspace import Workspace
from bundles.attestations import DSSE, OMS, PROVENANCE_TYPE, attestation_path, model_files
from bundles.contents import Contents, Model
from bundles.envelope import MAX_ENVELOPE_BYTES, pae
from bundles.intoto import PAYLOAD_TYPE, STATEMENT_TYPE
from bundles.layout import ATTESTATIONS, INDEX_FILE
from bundles.manifest import MAX_INDEX_BYTES, parse_index
from bundles.medium import Medium
from bundles.oms import MEDIA_TYPE, PREDICATE_TYPE, key_hint
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


def signed_files(workspace: Workspace, attested: Iterable[Attestation]) -> dict[str, bytes]:
    """The files of `attestations/`, by path: one for each signature that was made in this workspace."""
    pairs = ((one, signatures_over(workspace, one.message)) for one in attested)
    return dict(one.wrap(key, signature) for one, signatures in pairs for key, signature in signatures.items())


def carry(request: Request, root: bytes, bundles: Iterable[Path]) -> None:
    """Put what people have signed into the bundle that they were asked about, and take out what a retired key signed.

    Args:
        request: complete.
        root: the newest root file; who may sign targets by it stays.
        bundles: folders in `dist/`, among them that bundle's.
    """
    asked = [(item, _asked_as(item)) for item in request.items if item.kind == STATEMENT]
    people = read_root(root, "root.json").roles["targets"].keys
    for bundle in bundles:
        medium = Medium(bundle)
        manifest = parse_index(medium.read(INDEX_FILE, MAX_INDEX_BYTES) or b"").sha256
        if manifest in {one.subject for _, one in asked}:
            for item, one in asked:
                for path, data in _files(request, item, one):
                    medium.write(path, data)
        # A host that pins the newest root does not know a key that was retired before it.
        for path in [path for path in medium.walk(ATTESTATIONS) if PurePosixPath(path).stem not in people]:
            (bundle / path).unlink()


def _files(request: Request, item: Item, attested: Attestation) -> Iterator[tuple[str, bytes]]:
    keys = request.keys(item)
    for (path, by), signature in request.signatures.items():
        if path == item.path:
            yield attested.wrap(keys[by], signature)


def _asked_as(item: Item) -> Attestation:
    """The attestation whose message an item of a request is."""
    subject, _, kind = item.path.rpartition("/")[2].partition(".")
    # `DSSEv1`, two lengths and the type stand before the statement, none of which holds a space.
    return Attestation(Digest(subject), kind, item.message.split(b" ", 4)[4])


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
