"""Building a bundle a second time, to check that the same recipe and lock give the same bytes (`build --check`).

Owns the second build and its comparison with the bundle in `dist/`, or with a first build where there is none
(docs/architecture.md, The bundle). It must never write into `dist/` or the trust repository, nor sign or request a
signature.

Rules:
- two builds are the same when their manifest digests are: the manifest names every byte;
- each difference is named: causes first, then the bills that only follow from them;
- a chunk that the bundle in `dist/` has with the right bytes is compared there, and written nowhere;
- the bundle in `dist/` is not trusted: it is read to be compared, and each difference in it is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path

from appliance.builder.assembly.assembler import prepare
from appliance.builder.assembly.packing import Packed, pack
from appliance.builder.cache.built_entries import key_of, remove
from appliance.builder.cache.content_store import Cache
from appliance.builder.chunking.bundle_writer import BundleWriter
from appliance.builder.compare.first_difference import first_difference
from appliance.keys.workspace import Workspace
from bundles.chunks.chunk import MAX_CHUNK_BYTES, Chunk
from bundles.contents.contents import MAX_CONTENTS_BYTES, Contents
from bundles.contents.contents_json import parse_contents, write_contents
from bundles.medium import Medium
from bundles.oci.layout import INDEX_FILE, blob_path
from bundles.oci.manifest import MAX_INDEX_BYTES, MAX_MANIFEST_BYTES, parse_index_of_one, parse_manifest
from bundles.progress import OnProgress
from signing.digest import Digest, sha256
from signing.errors import ApplianceError, DamagedError

DIFFERS = "build.differs"
BILLS = ("sbom", "provenance")
RECIPE_FILES = ("config/recipe.yaml", "config/lock.json")
OWN_WHEEL = "wheels/airgap_appliance-"
CONTENTS = "contents.json"
_MAX_VALUE_CHARS = 200


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """Two builds that gave the same bytes.

    Args:
        contents: of the bundle.
        manifest: the digest of both manifests.
        standing: the bundle in `dist/` that it was compared with; None where it was built twice.
    """

    contents: Contents
    manifest: Digest
    standing: Path | None


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two builds: the folders that may have its blobs, its manifest and its contents."""

    places: tuple[Medium, ...]
    manifest: Digest
    contents: Contents


def rebuild(
    recipe_path: Path, workspace: Workspace, cache: Cache, on_progress: OnProgress, converter: Path | None = None
) -> Rebuilt:
    """Build the bundle of a recipe a second time and compare.

    Args:
        recipe_path: the recipe; its lock lies beside it.
        workspace: its `dist/` may hold the bundle. Nothing in it changes.
        cache: of downloads and runtimes; the second build is written into it for the time of the comparison.
        on_progress: called with bytes and steps.
        converter: as for `assemble`.

    Raises:
        ApplianceError: the two differ (code `build.differs`), with every difference; or of any part of a build.
        DamagedError: the bundle in `dist/` lacks bytes that its manifest lists (code `bundle.damaged`).
    """
    prepared = prepare(recipe_path, workspace, cache, on_progress, converter)
    standing = workspace.dist / f"{prepared.recipe.name}-{prepared.recipe.version}"
    with workspace.locked(), _place(workspace, cache) as place:
        there = standing.is_dir()
        final = Medium(standing if there else place / "one")
        if there:
            first = _standing(standing)
        else:
            writer = BundleWriter(place / "nothing", final.root)
            first = _packed((final,), pack(prepared, writer, cache, on_progress))
            prepared = prepare(recipe_path, workspace, cache, on_progress, converter)
        writer = BundleWriter(final.root, place / "two")
        packed = pack(prepared, writer, cache, on_progress)
        second = _packed((writer.making, final), packed)
        if first.manifest != second.manifest:
            raise _differing(first, second)
        if writer.written:
            raise _damaged(standing, packed.contents, writer.making)
    return Rebuilt(packed.contents, second.manifest, standing if there else None)


@contextmanager
def _place(workspace: Workspace, cache: Cache) -> Iterator[Path]:
    # One folder for each workspace, which is locked: what a killed run left there is removed by the next.
    place = cache.folder("rebuild") / key_of(str(workspace.path.resolve()))
    remove(place)
    try:
        yield place
    finally:
        remove(place)


def _packed(places: tuple[Medium, ...], packed: Packed) -> _Side:
    return _Side(places, sha256(packed.manifest), packed.contents)


def _standing(path: Path) -> _Side:
    medium = Medium(path)
    digest = parse_index_of_one(medium.read(INDEX_FILE, MAX_INDEX_BYTES) or b"").sha256
    manifest = parse_manifest(_read(medium, digest, MAX_MANIFEST_BYTES))
    contents = parse_contents(_read(medium, manifest.contents, MAX_CONTENTS_BYTES))
    return _Side((medium,), digest, contents)


def _read(medium: Medium, digest: Digest, max_bytes: int) -> bytes:
    data = medium.read(blob_path(digest), max_bytes)
    if data is None or sha256(data) != digest:
        raise _not_whole(medium.root, blob_path(digest), digest, "nothing" if data is None else sha256(data))
    return data


def _differing(old: _Side, new: _Side) -> ApplianceError:
    found = [*_files(old, new), *_facts(CONTENTS, old.contents, new.contents)]
    if not found:
        texts = [sha256(write_contents(side.contents)) for side in (old, new)]
        found = [_error(CONTENTS, f"sha256 {texts[0]}", f"sha256 {texts[1]}")]
    first = found[0]
    first.others = tuple(found[1:])
    first.hint = _hint([error.subject for error in found])
    return first


def _hint(names: list[str]) -> str:
    renew = "give the recipe a new `version`, then build it: a published version keeps its bytes"
    if any(name in RECIPE_FILES for name in names):
        return f"the recipe or its lock has changed since that one was built: {renew}"
    if any(name.startswith(OWN_WHEEL) for name in names):
        return f"another version of this program built it: check with that one, or {renew}"
    if any(name.startswith("runtime/") for name in names):
        return f"another toolchain compiled the runtime: check on a machine that has it, or {renew}"
    return "the same recipe and lock gave other bytes, a bug of this program or of a tool: report it with these lines"


def _files(old: _Side, new: _Side) -> Iterator[ApplianceError]:
    names = sorted({*old.contents.by_path, *new.contents.by_path}, key=lambda name: (_is_bill(old, new, name), name))
    for name in names:
        before, after = old.contents.by_path.get(name), new.contents.by_path.get(name)
        if before is None or after is None:
            yield _error(name, *(f"sha256 {file.sha256}" if file else "no such file" for file in (before, after)))
        elif before.sha256 != after.sha256:
            where = first_difference(before, after, lambda chunk: _chunk((*new.places, *old.places), chunk))
            yield _error(name, f"sha256 {before.sha256}", f"sha256 {after.sha256}, which differs {where}")
        elif before != after:
            yield from _facts(name, before, after)


def _is_bill(old: _Side, new: _Side, name: str) -> bool:
    file = new.contents.by_path.get(name) or old.contents.by_path[name]
    return file.kind in BILLS


def _chunk(places: tuple[Medium, ...], chunk: Chunk) -> bytes:
    for place in places:
        if (data := place.read(blob_path(chunk.sha256), MAX_CHUNK_BYTES)) is not None:
            return data
    return b""


def _facts(name: str, before: object, after: object) -> Iterator[ApplianceError]:
    """The differences between two values, down to single fields."""
    if before == after:
        return
    if is_dataclass(before) and type(before) is type(after):
        for one in fields(before):
            if one.compare and (name, one.name) != (CONTENTS, "files"):
                yield from _facts(f"{name} {one.name}", getattr(before, one.name), getattr(after, one.name))
    elif isinstance(before, tuple) and isinstance(after, tuple) and len(before) == len(after):
        for number, (one, two) in enumerate(zip(before, after, strict=True)):
            yield from _facts(f"{name}[{number}]", one, two)
    else:
        yield _error(name, _shorten(before), _shorten(after))


def _shorten(value: object) -> str:
    text = str(value)
    return text if len(text) <= _MAX_VALUE_CHARS else f"{text[:_MAX_VALUE_CHARS]}…"


def _error(subject: str, expected: str, found: str) -> ApplianceError:
    return ApplianceError(DIFFERS, subject, expected=expected, found=found)


def _damaged(standing: Path, contents: Contents, made: Medium) -> DamagedError:
    """The error for files whose digests the manifest in `dist/` has right, and whose blobs there are damaged."""
    wrong = [
        _not_whole(standing, file.path, chunk.sha256, "missing or other bytes")
        for file in contents.files
        for chunk in file.chunks
        if (made.root / blob_path(chunk.sha256)).exists()
    ] or [_not_whole(standing, CONTENTS, sha256(write_contents(contents)), "missing or other bytes")]
    wrong[0].others = tuple(wrong[1:])
    return wrong[0]


def _not_whole(standing: Path, subject: str, digest: Digest, found: str) -> DamagedError:
    return DamagedError(
        "bundle.damaged",
        subject,
        expected=f"blob {digest} in {standing}",
        found=found,
        hint="restore it: run the same command without --check",
    )
