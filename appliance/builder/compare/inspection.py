"""The contents and bills of a bundle, as values that are shown or compared.

Owns the reading for people: packages with their licences, models with their templates. It must never judge a package
or model, nor show a claim that was not signed.

Rules:
- bills are read through their signed chunks; on a medium without them, facts that only they have are empty;
- names and versions of packages are in the files' names, which are signed; licences come from the bill.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from appliance.builder.models.chat_template import find_faults, known_as, remarks
from bundles.attestation.required_statements import ML_BOM, SBOM, RequiredStatement
from bundles.chunks.chunk import Chunk
from bundles.chunks.source import ChunkSource
from bundles.chunks.stream import ChunkStream
from bundles.contents.contents import Contents, File, Model
from signing.digest import Digest, sha256
from signing.strictjson import Json, load_canonical

MAX_BILL_BYTES = 32 << 20
PACKAGED = ("wheel", "tool", "runtime", "os-package")
PROGRAMS = "runtime"


@dataclass(frozen=True, slots=True)
class BundledPackage:
    """A package of the bundle: its name, version, kind of file, path, and licence; empty where no bill has it."""

    name: str
    version: str
    kind: str
    path: str
    licence: str


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template.

    Args:
        key: in the GGUF.
        sha256: of its text.
        size: in bytes.
        known: the name of the template of llama.cpp with the same text; None for any other.
        remarks: what a person should know of it, each with its line: first why it would be refused without acceptance.
    """

    key: str
    sha256: Digest
    size: int
    known: str | None
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """Facts beside the contents: packages by name, templates by model, and whether the bills are on the medium."""

    packages: tuple[BundledPackage, ...]
    templates: Mapping[str, tuple[Template, ...]]
    has_bills: bool

    @property
    def licences(self) -> dict[str, list[str]]:
        """The names of packages by their licence."""
        found: dict[str, list[str]] = {}
        for package in self.packages:
            found.setdefault(package.licence or "unknown", []).append(package.name)
        return {licence: sorted(set(names)) for licence, names in sorted(found.items())}


def inspect(source: ChunkSource, contents: Contents) -> Inspection:
    """Read the packages and templates of a bundle.

    Args:
        source: of its blobs; untrusted.
        contents: verified.

    Raises:
        DamagedError: a bill is there and differs from its signed digest.
        NotTrustedError: a bill is not canonical JSON.
    """
    sbom, mlbom = _bill(source, contents, SBOM), _bill(source, contents, ML_BOM)
    licences = {part["bom-ref"]: _licence(part) for part in sbom.get("components", ())}
    packages = [_package(file, licences) for file in contents.of_kind(*PACKAGED)]
    parts = {part["bom-ref"]: part for part in mlbom.get("components", ())}
    templates = {model.name: _templates(model, parts) for model in contents.models}
    return Inspection(tuple(sorted(packages, key=lambda one: (one.name, one.path))), templates, bool(sbom and mlbom))


def missing_bills(source: ChunkSource, contents: Contents) -> tuple[Chunk, ...]:
    """The chunks of the bills of a bundle that are not here.

    Args:
        source: of its blobs; untrusted.
        contents: verified.
    """
    files = (contents.by_path.get(statement.path) for statement in (SBOM, ML_BOM))
    chunks = (chunk for file in files if file is not None and file.size <= MAX_BILL_BYTES for chunk in file.chunks)
    return tuple(chunk for chunk in dict.fromkeys(chunks) if not source.holds(chunk))


def _bill(source: ChunkSource, contents: Contents, statement: RequiredStatement) -> Json:
    file = contents.by_path.get(statement.path)
    if file is None or file.size > MAX_BILL_BYTES:
        return {}
    if not all(map(source.holds, file.chunks)):
        return {}  # an installed release, or sticks that carry a part of the blobs
    data = ChunkStream(source, file).read()
    value = load_canonical(data, statement.path, MAX_BILL_BYTES)
    return value if isinstance(value, dict) else {}


def _package(file: File, licences: Mapping[str, str]) -> BundledPackage:
    # Signed names follow the grammar of paths alone: one without a version is shown whole.
    separator = "_" if file.kind == "os-package" else "-"
    name, _, rest = PurePosixPath(file.path).name.partition(separator)
    version = rest.partition(separator)[0]
    if file.kind != "os-package":
        name = name.replace("_", "-").lower()
    return BundledPackage(name, version, file.kind, file.path, licences.get(file.path, ""))


def _licence(part: Json) -> str:
    declared = part.get("licenses") or [{}]
    return str(declared[0].get("expression") or declared[0].get("license", {}).get("name", ""))


def _templates(model: Model, parts: Mapping[str, Json]) -> tuple[Template, ...]:
    prefix = f"{model.path}#"
    found = [
        _template(ref.removeprefix(prefix), part["data"][0]["contents"]["attachment"]["content"])
        for ref, part in parts.items()
        if ref.startswith(prefix)
    ]
    if not found and model.template is not None:  # no bill here: the digest alone is signed in the contents
        return (Template("tokenizer.chat_template", model.template, 0, known_as(model.template), ()),)
    return tuple(found)


def _template(key: str, text: str) -> Template:
    data = text.encode()
    digest = sha256(data)
    # Only a person's acceptance brings a template with faults into a bundle.
    spite = [f"accepted in spite of {fault}" for fault in find_faults(text)]
    return Template(key, digest, len(data), known_as(digest), (*spite, *map(str, remarks(text))))
