"""Signatures in other people's formats, which lie in `attestations/` (FORMAT 11).

Owns their places, and the check that each one is true of this bundle. Nothing else is decided by them: what a
host installs follows from TUF alone. Yet one that does not verify is a refusal, since somebody put it there.

Rules:
- `attestations/<sha256 of the statement's subject>/<key id>.<oms|dsse>`, at most 64 KiB, canonical JSON;
- it is signed by the targets key that its name gives: of the newest root, or of an older root of the chain. One of an
  older root is reported and does not count; one that a root has revoked is a refusal (TRUST 10);
- `oms`: a model of the bundle with exactly its files; `dsse`: the statement's subject is the bundle's manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bundles.attestation.dsse import MAX_ENVELOPE_BYTES, check_signers, parse_envelope
from bundles.attestation.intoto import PAYLOAD_TYPE, parse_statement
from bundles.attestation.oms import key_hint, verify_oms
from bundles.bundle import Bundle
from bundles.contents.contents import Contents, Model
from bundles.oci.covered_names import ATTESTATION_PATH
from bundles.oci.layout import ATTESTATIONS, Layout
from signing.digest import Digest
from signing.errors import ApplianceError, NotTrustedError, worst
from signing.keys import PublicKey
from signing.strictjson import load_canonical
from signing.verified import Evidence, Verified

OMS, DSSE = "oms", "dsse"
PROVENANCE_TYPE = "https://slsa.dev/provenance/v1"


@dataclass(frozen=True)
class Attested:
    """One verified file of `attestations/`.

    Args:
        path: below the layout.
        format: `oms` or `dsse`.
        subject: the sha256 of what it is about.
        signer: whose signature it is.
        counts: whether the signer's key is in the targets role of the newest root; a key that was rotated out is not.
    """

    path: str
    format: str
    subject: Digest
    signer: PublicKey
    counts: bool = True


def attestation_path(subject: Digest, key_id: str, form: str) -> str:
    """Where a signature lies."""
    return f"{ATTESTATIONS}/{subject}/{key_id}.{form}"


def model_files(contents: Contents, model: Model) -> dict[str, Digest]:
    """The files in a model's folder, by name below it, in order: what its signature covers."""
    folder = model.path.rpartition("/")[0] + "/"
    return {file.path[len(folder) :]: file.sha256 for file in contents.files if file.path.startswith(folder)}


def check_attestations(layout: Layout, bundles: Sequence[Verified[Bundle]]) -> tuple[Attested, ...]:
    """Check everything in `attestations/`: each of them is about one of the bundles.

    Args:
        layout: untrusted.
        bundles: all that lie there, verified by the same metadata.

    Raises:
        NotTrustedError: one does not verify; reported with all others.
    """
    attested: list[Attested] = []
    errors: list[ApplianceError] = []
    for path in layout.medium.walk(ATTESTATIONS):
        try:
            attested.append(_check(layout, path, bundles))
        except ApplianceError as error:
            errors.append(error)
    if errors:
        raise worst(errors)
    return tuple(attested)


def _check(layout: Layout, path: str, bundles: Sequence[Verified[Bundle]]) -> Attested:
    match = ATTESTATION_PATH.match(path)
    data = layout.medium.read(path, MAX_ENVELOPE_BYTES)
    if match is None or data is None:
        raise _refuse(path, "<subject>/<key id>.oms or .dsse", "another name")
    subject, key_id, form = Digest(match[1]), Digest(match[2]), match[3]
    signer, counts = _signer(key_id, bundles[0].evidence, path)
    value = load_canonical(data, path, MAX_ENVELOPE_BYTES)
    if form == OMS:
        model, _ = verify_oms(data, [signer], path)
        contents = [found.value.contents for found in bundles]
        ours = [model_files(whole, one) for whole in contents for one in whole.models if one.name == model.name]
        if model.digest != subject or dict(model.files) not in ours:
            raise _refuse(path, "the files of a model of this bundle", f"others, as model {model.name[:80]}")
        if value["verificationMaterial"] != {"publicKey": {"hint": key_hint(signer)}, "tlogEntries": []}:
            raise _refuse(path, "the signer's key hint and nothing more", "something else")
    else:
        envelope = parse_envelope(value, PAYLOAD_TYPE, path)
        check_signers(envelope, [signer], 1, path)
        statement = parse_statement(envelope.payload, PROVENANCE_TYPE, path)
        manifests = [found.value.manifest for found in bundles]
        if list(statement.subjects.values()) != [subject] or subject not in manifests:
            raise _refuse(path, f"the manifest {' or '.join(manifests)} as subject", "another")
    return Attested(path, form, subject, signer, counts)


def _signer(key_id: Digest, evidence: Evidence, path: str) -> tuple[PublicKey, bool]:
    """The key of that id, and whether it still signs targets."""
    if key_id in evidence.revoked:
        raise NotTrustedError(
            "attestation.revoked-key",
            path,
            expected="a key that was not revoked",
            found=f"key id {key_id[:16]}, which a trust root has revoked",
            hint="somebody else may hold this key: ask the publisher for a stick that was written after the revocation",
        )
    for keys, counts in ((evidence.attesters, True), (evidence.former, False)):
        for key in keys:
            if key.key_id == key_id:
                return key, counts
    raise _refuse(path, "a key that signs or has signed targets", f"key id {key_id[:16]}, which never did")


def _refuse(path: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError(
        "attestation.refused",
        path,
        expected=expected,
        found=found,
        hint="somebody put this file there, or it is of an older publication; build again, or ask a key holder",
    )
