"""The bills of a bundle: what is in it, which models, and how it was made.

Owns which bills there are, and their places in the bundle. What each says is in `sbom`, `mlbom` and `provenance`.

Rules:
- the bills are files of the bundle like any other: signed with it, and the same from the same recipe and lock;
- they are written from what was really stored, after it was stored, and never from the recipe's hopes;
- no bill lists a bill: none could hold its own digest.
"""

from __future__ import annotations

from appliance.builder.bills.facts import BillFacts
from appliance.builder.bills.mlbom import write_mlbom
from appliance.builder.bills.provenance import write_provenance
from appliance.builder.bills.sbom import write_sbom
from appliance.builder.chunking.chunker import Source
from bundles.attestation.required_statements import ML_BOM, PROVENANCE, SBOM


def write_bills(facts: BillFacts) -> tuple[Source, ...]:
    """Write every bill.

    Args:
        facts: all of what goes into the bundle, but for `contents.json` and these bills.

    Returns:
        Sources, ready to be stored.

    Raises:
        DamagedError: a wheel cannot be read.
    """
    written = ((ML_BOM, write_mlbom(facts)), (PROVENANCE, write_provenance(facts)), (SBOM, write_sbom(facts)))
    return tuple(Source(statement.path, statement.kind, data=data) for statement, data in written)
