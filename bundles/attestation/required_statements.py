"""The statements that a bundle makes about itself, and that its signers can require of it (threat T31).

Owns their names, as targets have them in `custom.statements`, and where each one lies in a bundle. It must never
judge what a statement contains.

Rules:
- a statement is there when the signed contents list its file, of its kind, with at least one byte;
- a name that this version does not know is required by somebody newer: the reader refuses, it never skips.
"""

from __future__ import annotations

from dataclasses import dataclass

from bundles.contents.contents import Contents


@dataclass(frozen=True)
class RequiredStatement:
    """One statement.

    Args:
        name: in a target's `custom.statements`.
        path: its file in the bundle.
        kind: of that file.
        type: what the document is, for programs that read it: a predicate type or a format.
    """

    name: str
    path: str
    kind: str
    type: str


SBOM = RequiredStatement("sbom", "bills/sbom.cdx.json", "sbom", "application/vnd.cyclonedx+json; version=1.6")
ML_BOM = RequiredStatement("ml-bom", "bills/ml-bom.cdx.json", "sbom", "application/vnd.cyclonedx+json; version=1.6")
PROVENANCE = RequiredStatement("provenance", "bills/provenance.json", "provenance", "https://slsa.dev/provenance/v1")
STATEMENTS = (ML_BOM, PROVENANCE, SBOM)
"""Every statement that this version writes, by name."""
DATASET = RequiredStatement("dataset", "bills/dataset.json", "provenance", "urn:airgap-appliance:dataset:1")
EVALUATION = RequiredStatement(
    "evaluation", "bills/evaluation.json", "provenance", "https://in-toto.io/attestation/test-result/v0.1"
)
KNOWN = (DATASET, EVALUATION, *STATEMENTS)
"""Every statement that a reader knows: those about adapters, too, which come with format 2."""
REQUIRED = tuple(statement.name for statement in STATEMENTS)
"""What a bundle that this version publishes must have."""


def statements_in(contents: Contents) -> frozenset[str]:
    """The names of the statements that a bundle makes.

    Args:
        contents: named by a signed manifest.
    """
    found = {file.path: file for file in contents.files if file.size}
    return frozenset(one.name for one in KNOWN if one.path in found and found[one.path].kind == one.kind)
