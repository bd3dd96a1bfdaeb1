"""The parts of CycloneDX 1.6 in JSON that both bills use.

Owns the document around the components, licences, hashes and package URLs. It knows nothing of bundles.

Rules:
- the same facts give the same bytes: no time but the given one, no random serial number, lists in a fixed order;
- a licence that is no SPDX expression is written under the name that its author gave it, never guessed.

Source: CycloneDX specification 1.6 (ECMA-424); package-url specification.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone

from packageurl import PackageURL
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from signing.digest import Digest
from signing.strictjson import Json, to_file

SPEC_VERSION = "1.6"
BUNDLE_REF = "bundle"
NOT_DECLARED = "not declared by its author"


def document(
    about: Json, tool: Json, epoch: int, components: Iterable[Json], depends: Mapping[str, Iterable[str]]
) -> bytes:
    """A whole bill.

    Args:
        about: the component that the bill is about; its reference is `BUNDLE_REF`.
        tool: the component that wrote the bill.
        epoch: seconds since 1970: the one time in it.
        components: with `bom-ref` each.
        depends: the references that each reference needs; `BUNDLE_REF` needs every component.

    Returns:
        Canonical JSON.
    """
    parts = sorted(components, key=lambda part: str(part["bom-ref"]))
    graph = {BUNDLE_REF: [part["bom-ref"] for part in parts], **depends}
    value = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC_VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [tool]},
            "component": {**about, "bom-ref": BUNDLE_REF},
        },
        "components": parts,
        "dependencies": [{"ref": ref, "dependsOn": sorted(graph[ref])} for ref in sorted(graph)],
        "compositions": [{"aggregate": "complete", "assemblies": [BUNDLE_REF]}],
    }
    # The serial number identifies this content: it is made of its bytes.
    return to_file({**value, "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, to_file(value).decode()).urn})


def hashes(sha256: Digest) -> Json:
    """The hashes of a component."""
    return [{"alg": "SHA-256", "content": sha256}]


def licences(declared: str) -> Json:
    """The licences of a component.

    Args:
        declared: by its author or the recipe; may be empty.
    """
    try:
        return [{"expression": str(canonicalize_license_expression(declared))}]
    except InvalidLicenseExpression:
        return [{"license": {"name": declared or NOT_DECLARED}}]


def properties(values: Mapping[str, object]) -> Json:
    """Facts that CycloneDX has no field for, under this program's prefix, sorted."""
    return [{"name": f"airgap-appliance:{name}", "value": str(value)} for name, value in sorted(values.items())]


def references(kind: str, paths: Iterable[str]) -> Json:
    """References to files of the same bundle."""
    return [{"type": kind, "url": path} for path in sorted(paths)]


def pypi_url(name: str, version: str) -> str:
    """The package URL of a Python distribution, for example `pkg:pypi/click@8.1.8`."""
    return PackageURL("pypi", None, name, version).to_string()


def debian_url(name: str, version: str, qualifiers: Mapping[str, str] | None = None) -> str:
    """The package URL of a Debian package, for example `pkg:deb/debian/bubblewrap@0.8.0-2?arch=amd64`."""
    return PackageURL("deb", "debian", name, version, dict(qualifiers or {})).to_string()
