"""OpenSSF model signatures (OMS 1.0): which files a model is made of, signed in the format of `model_signing`.

Owns the reading of such a file: a sigstore bundle 0.3 around a DSSE envelope around a statement. None of our own
decisions rests on it; it is for other people's tools, and one that does not verify is refused all the same.

Rules:
- a public key alone vouches: bundles with certificates are read, and refused when they are to be verified;
- one signature; the key hint, where there is one, is the sha256 of the key's PEM;
- method `files`, sha256, no links; the subject's digest is the sha256 of the files' digests in the order given.

Source: OpenSSF model signing specification 1.0; sigstore protobuf-specs, sigstore_bundle.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bundles.attestation.dsse import MAX_ENVELOPE_BYTES, Dsse, check_signers, parse_envelope
from bundles.attestation.intoto import PAYLOAD_TYPE, Statement, parse_statement, refuse
from signing.digest import Digest, parse_digest, sha256
from signing.keys import PublicKey, key_to_json
from signing.strictjson import Json, load

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_MATERIAL = ("publicKey", "x509CertificateChain", "certificate")


@dataclass(frozen=True)
class SignedModel:
    """A model as a signature describes it: its name, the digest over all, and its files (path → sha256)."""

    name: str
    digest: Digest
    files: Mapping[str, Digest]


@dataclass(frozen=True)
class ModelSignature:
    """A signature file as it was read: what identifies the signer, the envelope and the model. Not trusted yet."""

    material: str
    hint: str
    envelope: Dsse
    model: SignedModel


def parse_oms(data: bytes, subject: str) -> ModelSignature:
    """Read a signature file without verifying it.

    Args:
        data: untrusted; at most 64 KiB.
        subject: the file's name, for the error.

    Raises:
        NotTrustedError: it is no OMS 1.0 signature.
    """
    value = load(data, subject, MAX_ENVELOPE_BYTES)
    if not isinstance(value, dict) or set(value) != {"mediaType", "verificationMaterial", "dsseEnvelope"}:
        raise refuse(subject, "fields mediaType, verificationMaterial, dsseEnvelope", "others")
    if value["mediaType"] != MEDIA_TYPE:
        raise refuse(subject, MEDIA_TYPE, repr(value["mediaType"])[:80])
    material, hint = _material(value["verificationMaterial"], subject)
    envelope = parse_envelope(value["dsseEnvelope"], PAYLOAD_TYPE, subject)
    if len(envelope.signatures) != 1:
        raise refuse(subject, "one signature", str(len(envelope.signatures)))
    statement = parse_statement(envelope.payload, PREDICATE_TYPE, subject)
    return ModelSignature(material, hint, envelope, _model(statement, subject))


def verify_oms(data: bytes, keys: Iterable[PublicKey], subject: str) -> tuple[SignedModel, PublicKey]:
    """Verify a signature file against the keys that may have made it.

    Returns:
        The model, and who signed. Comparing the files with it is the caller's.

    Raises:
        NotTrustedError: it is no OMS 1.0 signature, rests on a certificate, or is by none of the keys.
    """
    found, known = parse_oms(data, subject), tuple(keys)
    if found.material != "publicKey":
        raise refuse(subject, "a signature by a public key", f"one that rests on {found.material}")
    [signer] = check_signers(found.envelope, known, 1, subject)
    if found.hint and found.hint != key_hint(signer):
        raise refuse(subject, "the sha256 of the signer's PEM as hint", found.hint[:80])
    return found.model, signer


def key_hint(key: PublicKey) -> Digest:
    """What the format names a key by: the sha256 of its PEM."""
    return sha256(key_to_json(key)["keyval"]["public"].encode())


def _material(value: Json, subject: str) -> tuple[str, str]:
    kinds = [kind for kind in _MATERIAL if isinstance(value, dict) and kind in value]
    allowed = {*kinds, "tlogEntries", "timestampVerificationData"}
    if len(kinds) != 1 or not set(value) <= allowed or not isinstance(value[kinds[0]], dict):
        raise refuse(subject, f"one of {', '.join(_MATERIAL)}", "something else")
    if not isinstance(value.get("tlogEntries", []), list) or (
        kinds == ["certificate"] and not value.get("tlogEntries")
    ):
        raise refuse(subject, "the log entries that this kind of signature needs", "none")
    hint = value[kinds[0]].get("hint", "")
    if not isinstance(hint, str):
        raise refuse(subject, "a hint as text", repr(hint)[:80])
    return kinds[0], hint


def _model(statement: Statement, subject: str) -> SignedModel:
    predicate = statement.predicate
    if len(statement.subjects) != 1 or set(predicate) != {"serialization", "resources"}:
        raise refuse(subject, "one subject, serialization and resources", "others")
    form, resources = predicate["serialization"], predicate["resources"]
    if not isinstance(form, dict) or form.get("method") != "files" or form.get("allow_symlinks") is not False:
        raise refuse(subject, "method files without symbolic links", "another serialization")
    if form.get("hash_type", "sha256") != "sha256" or not isinstance(resources, list) or not resources:
        raise refuse(subject, "a list of files hashed with sha256", "something else")
    files = dict(_file(item, subject) for item in resources)
    [(name, digest)] = statement.subjects.items()
    together = sha256(b"".join(bytes.fromhex(found) for found in files.values()))
    if len(files) != len(resources) or together != digest:
        raise refuse(subject, f"each file once, with digests that together give {digest}", together)
    return SignedModel(name, digest, files)


def _file(item: Json, subject: str) -> tuple[str, Digest]:
    if not isinstance(item, dict) or set(item) != {"name", "algorithm", "digest"} or item["algorithm"] != "sha256":
        raise refuse(subject, "files with name, algorithm sha256 and digest", "others")
    if not isinstance(item["name"], str) or not item["name"]:
        raise refuse(subject, "a file's name", repr(item["name"])[:80])
    return item["name"], parse_digest(item["digest"], subject)
