"""The differences between two bundles, and the size of a delta from one to the other.

Owns the comparison of two verified bundles. It reads no byte of a file; `bundles.delta` decides what a delta carries.

Rules:
- a file is the same when its digest, kind and mode are;
- a file at another path is listed as removed and as added, and a delta carries no byte for it;
- packages are compared by kind and name: another version is a change, not a removal and an addition;
- everything is sorted, so that the same two bundles give the same differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from appliance.builder.compare.inspection import BundledPackage, Inspection
from bundles.bundle import Bundle
from bundles.contents.contents import File, Model
from bundles.delta import delta, held_by

ADDED, REMOVED, CHANGED = "added", "removed", "changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference.

    Args:
        what: `added`, `removed` or `changed`.
        name: of the file, model, package or licence.
        before, after: as text; empty where it is absent.
        carried: bytes that a delta carries for it; files only.
    """

    what: str
    name: str
    before: str = ""
    after: str = ""
    carried: int = 0


@dataclass(frozen=True, slots=True)
class Differences:
    """All differences, and the sizes of a delta in bytes: of its documents, and of all that it carries."""

    files: tuple[Difference, ...]
    models: tuple[Difference, ...]
    packages: tuple[Difference, ...]
    licences: tuple[Difference, ...]
    needs: tuple[Difference, ...]
    documents_bytes: int
    carried_bytes: int
    carried_blobs: int
    size_bytes: int


def compare(old: Bundle, new: Bundle, before: Inspection, after: Inspection) -> Differences:
    """Compare two bundles.

    Args:
        old: the bundle that is there; verified.
        new: the wanted one; verified.
        before, after: of the old and the new one.
    """
    carried = delta(new, held_by(old.contents))
    sizes = {entry.file.path: entry.size_bytes for entry in carried.files}
    return Differences(
        files=_files(old.contents.by_path, new.contents.by_path, sizes),
        models=_models(old.contents.models, new.contents.models),
        packages=_named(_packages(before.packages), _packages(after.packages)),
        licences=_named(_licences(before), _licences(after)),
        needs=_named(_needs(old), _needs(new)),
        documents_bytes=sum(chunk.size for chunk in carried.documents),
        carried_bytes=carried.size_bytes,
        carried_blobs=len(carried.blobs),
        size_bytes=new.contents.size_bytes,
    )


def _files(old: Mapping[str, File], new: Mapping[str, File], sizes: Mapping[str, int]) -> tuple[Difference, ...]:
    return tuple(
        Difference(one.what, one.name, one.before, one.after, sizes.get(one.name, 0))
        for one in _named(
            {path: _file(file) for path, file in old.items()}, {path: _file(file) for path, file in new.items()}
        )
    )


def _file(file: File) -> str:
    return f"{file.sha256} {file.kind} {file.mode:o} {file.size} bytes"


def _models(old: tuple[Model, ...], new: tuple[Model, ...]) -> tuple[Difference, ...]:
    """Models that were added or removed, and each fact that changed of one that is in both."""
    before, after = ({model.name: _model(model) for model in models} for models in (old, new))
    found = list(_named(*({name: _line(one) for name, one in side.items()} for side in (before, after))))
    for one in [one for one in found if one.what == CHANGED]:
        found.remove(one)
        facts = _named(before[one.name], after[one.name])
        found += [Difference(CHANGED, f"{one.name} {fact.name}", fact.before, fact.after) for fact in facts]
    return tuple(sorted(found, key=lambda one: one.name))


def _model(model: Model) -> dict[str, str]:
    return {
        "architecture": model.architecture,
        "quantisation": model.quantisation,
        "weights": str(model.parameters),
        "context": str(model.context),
        "template": model.template or "none",
        "tensors": model.tensors,
        "licence": model.licence,
        "file": model.path,
        "source": model.lineage.source,
    }


def _line(facts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _packages(packages: tuple[BundledPackage, ...]) -> dict[str, str]:
    # A package can be there in several versions, one for each target: then one text lists them all.
    found: dict[str, set[str]] = {}
    for package in packages:
        found.setdefault(f"{package.name} ({package.kind})", set()).add(package.version)
    return {name: ", ".join(sorted(versions)) for name, versions in found.items()}


def _licences(inspection: Inspection) -> dict[str, str]:
    return {package.name: package.licence for package in inspection.packages if package.licence}


def _needs(bundle: Bundle) -> dict[str, str]:
    needs = {name: _words(value) for name, value in asdict(bundle.contents.needs).items()}
    targets = [f"{one.os} {one.arch} Python {' '.join(one.python)}" for one in bundle.contents.targets]
    return {**needs, "targets": "; ".join(targets), "slots": str(bundle.contents.serve.slots)}


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _named(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[Difference, ...]:
    found = []
    for name in sorted({*old, *new}):
        if name not in old:
            found.append(Difference(ADDED, name, after=new[name]))
        elif name not in new:
            found.append(Difference(REMOVED, name, before=old[name]))
        elif old[name] != new[name]:
            found.append(Difference(CHANGED, name, old[name], new[name]))
    return tuple(found)
