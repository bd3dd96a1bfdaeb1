"""The bills of a bundle: its software, its models, and how it was built.

Owns which bills there are, and their paths in the bundle. The text of each is written in `sbom`, `mlbom` and
`provenance`.

Rules:
- the bills are files of the bundle like any other: signed with it, and the same from the same recipe and lock;
- they are written from the stored files, after these were stored, and never from the recipe alone;
- no bill lists a bill: none could hold its own digest.
"""

from __future__ import annotations

from appliance.builder.bills.bill_inputs import BillFacts
from appliance.builder.bills.mlbom import write_mlbom
from appliance.builder.bills.provenance import write_provenance
from appliance.builder.bills.sbom import write_sbom
from appliance.builder.chunking.chunker import Source
from bundles.attestation.required_statements import ML_BOM, PROVENANCE, SBOM


def write_bills(facts: BillFacts) -> tuple[Source, ...]:
    """Write every bill.

    Args:
        facts: of everything in the bundle but `contents.json` and the bills.

    Returns:
        The bills as files, ready to be stored.

    Raises:
        DamagedError: a wheel cannot be read.
    """
    written = ((ML_BOM, write_mlbom(facts)), (PROVENANCE, write_provenance(facts)), (SBOM, write_sbom(facts)))
    return tuple(Source(statement.path, statement.kind, data=data) for statement, data in written)
