"""The provenance of a bundle: SLSA v1, as a bare in-toto Statement.

Owns the description of how the bundle was built. The statement is a file of the bundle and signed as such. A signed
envelope with the same predicate is about the bundle's manifest (`appliance.builder.assembly.attestation_writer`).

Rules:
- its subjects are all files of the bundle but the bills; the bundle's own digest cannot stand in a file of it;
- no time, machine, user or path: it holds only what recipe, lock and toolchain decide;
- every fetched file is a dependency with its sha256; the compiler, which is not fetched, is named by its version.

Source: SLSA specification 1.0, provenance; in-toto attestation framework 1.0, statement.
"""

from __future__ import annotations

import importlib.metadata

from appliance.builder.bills import cyclonedx
from appliance.builder.bills.bill_inputs import BillFacts
from appliance.builder.lock.lockfile import Locked
from appliance.builder.runtime.build_types import BuiltRuntime
from appliance.builder.wheels.appliance_wheel import DISTRIBUTION
from bundles.attestation.required_statements import PROVENANCE
from signing.strictjson import Json, to_file

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
BUILD_TYPE = "urn:airgap-appliance:build:1"
BUILDER_ID = "urn:airgap-appliance:builder:1"
_BILLS = ("provenance", "sbom")


def write_provenance(facts: BillFacts) -> bytes:
    """Write the statement.

    Args:
        facts: of everything in the bundle.
    """
    subjects = (file for file in facts.files if file.kind not in _BILLS)
    builder = {"id": BUILDER_ID, "version": {DISTRIBUTION: importlib.metadata.version(DISTRIBUTION)}}
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"recipe": _config(facts, "config/recipe.yaml"), "name": facts.recipe.name}
            | {"version": facts.recipe.version},
            "internalParameters": _internal(facts),
            "resolvedDependencies": [
                _config(facts, "config/lock.json"),
                *(_dependency(entry) for entry in facts.lock.entries if entry.made is None),
            ],
        },
        "runDetails": {"builder": builder},
    }
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": file.path, "digest": {"sha256": file.sha256}} for file in subjects],
        "predicateType": PROVENANCE.type,
        "predicate": predicate,
    }
    return to_file(statement)


def _config(facts: BillFacts, path: str) -> Json:
    digest = next(file.sha256 for file in facts.files if file.path == path)
    return {"name": path, "digest": {"sha256": digest}}


def _internal(facts: BillFacts) -> Json:
    runtime, cuda = facts.gathered.runtime, facts.gathered.cuda
    return {
        "source_date_epoch": facts.lock.source_date_epoch,
        "runtime": {**_built(runtime), "cpu_variants": list(runtime.variants)},
        **({"cuda": _built(cuda)} if cuda else {}),
        "models": [
            {"name": model.name, "program": _programs(model.lineage.steps), "steps": list(model.lineage.steps)}
            for model in facts.models
        ],
    }


def _programs(steps: tuple[str, ...]) -> str:
    return ", ".join(step.partition(" ")[0] for step in steps)


def _built(runtime: BuiltRuntime) -> dict[str, Json]:
    return {
        "version": runtime.version,
        "sha256": runtime.sha256,
        "flags": list(runtime.flags),
        "toolchain": dict(runtime.toolchain),
    }


def _dependency(entry: Locked) -> Json:
    # A package URL for packages; for a model from elsewhere its source, as the recipe writes it.
    package_url = cyclonedx.debian_url if entry.kind == "os-package" else cyclonedx.pypi_url
    annotations: dict[str, Json] = {"kind": entry.kind, "size": entry.size, "licence": entry.licence}
    if entry.member is not None:
        annotations |= {"member": entry.member.path, "member_sha256": entry.member.sha256}
    return {
        "name": entry.file,
        "uri": entry.source or package_url(entry.name, entry.version),
        "digest": {"sha256": entry.sha256},
        "annotations": annotations,
    }
