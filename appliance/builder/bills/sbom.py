"""The bill of materials for software: wheels, runtime, OS packages and playbooks, each with its licence.

Owns which component each file of the bundle becomes. It must never leave a file out: the bill claims to be complete.

Rules:
- a component's reference is its path in the bundle; its digest is the one in `contents.json`;
- a wheel depends on another of the bundle when its metadata requires it for the Python of a target;
- a licence text is a reference of its component; models are described in full in the other bill.

Source: CycloneDX specification 1.6.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from appliance.builder.bills import cyclonedx
from appliance.builder.bills.bill_inputs import BillFacts
from appliance.builder.lock.lockfile import RUNTIME
from appliance.builder.wheels.appliance_wheel import DISTRIBUTION
from appliance.builder.wheels.reader import wheel_metadata, wheel_requires
from bundles.attestation.required_statements import ML_BOM
from bundles.contents.contents import File, Member
from signing.strictjson import Json

WHEELS = ("runtime", "tool", "wheel")
_IN_NO_COMPONENT = ("licence", "provenance", "sbom")
_DEB_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}


def write_sbom(facts: BillFacts) -> bytes:
    """Write the bill.

    Args:
        facts: of everything in the bundle.

    Raises:
        DamagedError: a wheel cannot be read.
    """
    wheels = {source.path: source.file for source in facts.gathered.sources if source.kind in WHEELS and source.file}
    components = [
        _component(facts, file, wheels.get(file.path)) for file in facts.files if file.kind not in _IN_NO_COMPONENT
    ]
    about = {"type": "application", "name": facts.recipe.name, "version": facts.recipe.version}
    return cyclonedx.document(
        about, own_component(), facts.lock.source_date_epoch, components, dict(_depends(facts, wheels))
    )


def own_component() -> Json:
    """This program as a component: the tool that wrote a bill."""
    version = importlib.metadata.version(DISTRIBUTION)
    return {"type": "application", "name": DISTRIBUTION, "version": version}


def _component(facts: BillFacts, file: File, wheel: Path | None) -> Json:
    base = {"bom-ref": file.path, "hashes": cyclonedx.hashes(file.sha256)}
    facts_of = cyclonedx.properties({"kind": file.kind, "path": file.path, "size": file.size})
    if wheel is not None:
        return {**base, **_wheel(facts, file, wheel), "properties": facts_of}
    if file.kind == "os-package":
        return {**base, **_os_package(facts, file), "properties": facts_of}
    if file.kind == "model":
        return {**base, **_model(facts, file), "properties": facts_of}
    return {**base, "type": "file", "name": file.path, "properties": facts_of}


def _wheel(facts: BillFacts, file: File, path: Path) -> Json:
    name, version, licence = wheel_metadata(path)
    plain = canonicalize_name(name)
    component = {
        "type": "application" if file.kind == "tool" or plain == DISTRIBUTION else "library",
        "name": plain,
        "version": version,
        "purl": cyclonedx.pypi_url(plain, version),
        "licenses": cyclonedx.licences(licence),
        "externalReferences": cyclonedx.references("license", facts.licence_paths(plain)),
    }
    if file.kind == "runtime":
        component["components"] = [_member(file, member) for member in file.members]
        component["pedigree"] = {"ancestors": list(_runtime_sources(facts)), "notes": _how_built(facts)}
    return component


def _member(file: File, member: Member) -> Json:
    return {
        "type": "application" if member.mode & 0o100 and ".so" not in member.path else "library",
        "bom-ref": f"{file.path}#{member.path}",
        "name": member.path.rpartition("/")[2],
        "hashes": cyclonedx.hashes(member.sha256),
    }


def _runtime_sources(facts: BillFacts) -> Iterator[Json]:
    for entry in facts.lock.of_kind("sdist"):
        if entry.name == RUNTIME:
            yield {
                "type": "library",
                "name": entry.name,
                "version": entry.version,
                "purl": cyclonedx.pypi_url(entry.name, entry.version),
                "hashes": cyclonedx.hashes(entry.sha256),
            }


def _how_built(facts: BillFacts) -> str:
    runtime = facts.gathered.runtime
    return (
        f"built for this bundle with {runtime.toolchain.get('gcc', 'gcc')}; processors: {', '.join(runtime.variants)}"
    )


def _os_package(facts: BillFacts, file: File) -> Json:
    entry = facts.locked(file.sha256)
    if entry is None:
        raise ValueError(f"{file.path} is not in the lock")
    where = {"arch": _DEB_ARCH[facts.recipe.arch], "distro": entry.system or ""}
    return {
        "type": "library",
        "name": entry.name,
        "version": entry.version,
        "purl": cyclonedx.debian_url(entry.name, entry.version, where),
        "licenses": cyclonedx.licences(entry.licence or f"usr/share/doc/{entry.name}/copyright, in the package"),
    }


def _model(facts: BillFacts, file: File) -> Json:
    model = next(model for model in facts.models if model.path == file.path)
    return {
        "type": "machine-learning-model",
        "name": model.name,
        "licenses": cyclonedx.licences(model.licence),
        "externalReferences": [
            *cyclonedx.references("bom", [ML_BOM.path]),
            *cyclonedx.references("license", facts.licence_paths(f"model-{model.name}")),
        ],
    }


def _depends(facts: BillFacts, wheels: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    names: dict[str, list[str]] = {}
    for path, wheel in wheels.items():
        names.setdefault(canonicalize_name(wheel_metadata(wheel)[0]), []).append(path)
    for path, wheel in wheels.items():
        wanted = {canonicalize_name(one.name) for one in map(Requirement, wheel_requires(wheel)) if _holds(facts, one)}
        yield path, [other for name in sorted(wanted) for other in names.get(name, []) if other != path]


def _holds(facts: BillFacts, requirement: Requirement) -> bool:
    if requirement.marker is None:
        return True
    return any(
        requirement.marker.evaluate(
            {
                "python_version": python,
                "python_full_version": f"{python}.0",
                "implementation_name": "cpython",
                "platform_python_implementation": "CPython",
                "os_name": "posix",
                "sys_platform": "linux",
                "platform_system": "Linux",
                "platform_machine": facts.recipe.arch,
                "extra": "",
            }
        )
        for python in facts.recipe.pythons
    )
