"""in-toto Statements: what a signature in another format states about which bytes.

Owns the reading of the outside of a statement, version 1. What a predicate means is its owner's:
`bundles.attestation.oms` for models. Strict JSON, four fields, sha256 alone, each subject once (threats T13, T14).

Source: in-toto attestation framework, spec/v1/statement.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from signing.digest import Digest, parse_digest
from signing.errors import NotTrustedError
from signing.strictjson import Json, load

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"


@dataclass(frozen=True)
class Statement:
    """A statement: its subjects (name → sha256), the type of its predicate, and the predicate, as yet unread."""

    subjects: Mapping[str, Digest]
    predicate_type: str
    predicate: Mapping[str, Json]


def parse_statement(payload: bytes, predicate_type: str, subject: str) -> Statement:
    """Read a statement whose predicate has the type that the caller expects.

    Raises:
        NotTrustedError: another shape, or another predicate type (code `statement.predicate-type`).
    """
    value = load(payload, subject)
    if not isinstance(value, dict) or set(value) != {"_type", "subject", "predicateType", "predicate"}:
        raise refuse(subject, "fields _type, subject, predicateType, predicate", "others")
    if value["_type"] != STATEMENT_TYPE:
        raise refuse(subject, STATEMENT_TYPE, repr(value["_type"])[:80])
    if value["predicateType"] != predicate_type:
        found = repr(value["predicateType"])[:80]
        raise NotTrustedError("statement.predicate-type", subject, expected=predicate_type, found=found)
    items, predicate = value["subject"], value["predicate"]
    if not isinstance(items, list) or not items or not isinstance(predicate, dict):
        raise refuse(subject, "a list of subjects and a predicate", "something else")
    pairs = dict(_subject(item, subject) for item in items)
    if len(pairs) != len(items):
        raise refuse(subject, "each subject once", "a name twice")
    return Statement(pairs, predicate_type, predicate)


def refuse(subject: str, expected: str, found: str) -> NotTrustedError:
    """The error for a statement, or a part of one, of another shape."""
    return NotTrustedError("statement.refused", subject, expected=expected, found=found)


def _subject(item: Json, subject: str) -> tuple[str, Digest]:
    if not isinstance(item, dict) or set(item) != {"name", "digest"} or not isinstance(item["name"], str):
        raise refuse(subject, "subjects with name and digest", "other fields")
    if not isinstance(item["digest"], dict) or set(item["digest"]) != {"sha256"}:
        raise refuse(subject, "sha256 alone", "other digests")
    return item["name"], parse_digest(item["digest"]["sha256"], subject)
