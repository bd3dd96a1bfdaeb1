"""The files of a medium as a list for a scanning station (kiosk) that lets listed files through.

Owns the rows: each file that may lie on the medium, by path, length and digest. It must never list a file that the
format does not give: the caller has checked the medium first.

Rules:
- the blobs are those of the whole bundle, so one list serves every stick of a set;
- a blob has the kinds and licences of the files that need it;
- a licence is shown so that no spreadsheet takes it for a formula.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass

from bundles.bare_host.boot_check import MAX_FILE_BYTES
from bundles.bundle import Bundle
from bundles.chunks.chunk import Chunk
from bundles.oci.layout import (
    ATTESTATIONS,
    BOOT,
    INDEX_FILE,
    LAYOUT_FILE,
    METADATA,
    PARITY,
    README_FILE,
    STICK_FILE,
    TARGETS,
    Layout,
    blob_path,
)
from bundles.parity.streams import LIST_FILE, read_parity
from signing.digest import Digest, sha256

HEADER = ("path", "size", "sha256", "kind", "licence")
_FOLDERS = {METADATA: "metadata", TARGETS: "target", ATTESTATIONS: "attestation", BOOT: "boot"}
_FILES = {LAYOUT_FILE: "layout", INDEX_FILE: "layout", README_FILE: "readme", STICK_FILE: "stick"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class AllowedFile:
    """One row: a path on the medium, its length in bytes, its digest, and what it is.

    Args:
        path, size, sha256: of the file on the medium.
        kind: kinds of the bundle's files that it is a part of, or what it is for the format.
        licence: licences of those files, as SPDX expressions; empty where none is stated.
    """

    path: str
    size: int
    sha256: Digest
    kind: str
    licence: str


def list_allowed(layout: Layout, bundles: Sequence[Bundle], licences: Mapping[str, str]) -> list[AllowedFile]:
    """List every file that may lie on a medium.

    Args:
        layout: of the medium, which `bundles.medium_check` has checked.
        bundles: those that lie there; verified.
        licences: of packages, by the path of the file.

    Returns:
        One row for each path, sorted.
    """
    rows = {row.path: row for bundle in bundles for row in _blobs(bundle, licences)}
    rows |= {row.path: row for row in _small_files(layout)}
    return [rows[path] for path in sorted(rows)]


def format_csv(rows: Iterable[AllowedFile]) -> list[str]:
    """The rows as lines of CSV (RFC 4180, without line ends), the names of the columns first."""
    lines = []
    for row in (HEADER, *map(astuple, rows)):
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow([_no_formula(str(cell)) for cell in row])
        lines.append(text.getvalue())
    return lines


def _blobs(bundle: Bundle, licences: Mapping[str, str]) -> Iterator[AllowedFile]:
    known = {**licences, **{model.path: model.licence for model in bundle.contents.models}}
    known |= {adapter.path: adapter.licence for adapter in bundle.contents.adapters}
    kinds: dict[Chunk, dict[str, None]] = {}
    named: dict[Chunk, dict[str, None]] = {}
    for file in bundle.contents.files:
        for chunk in file.chunks:
            kinds.setdefault(chunk, {})[file.kind] = None
            if licence := known.get(file.path):
                named.setdefault(chunk, {})[licence] = None
    documents = {Chunk(bundle.manifest, bundle.manifest_size): "manifest", bundle.config: "contents"}
    for chunk in bundle.blobs:
        kind = " ".join((*([documents[chunk]] if chunk in documents else ()), *kinds.get(chunk, ())))
        yield AllowedFile(blob_path(chunk.sha256), chunk.size, chunk.sha256, kind, "; ".join(named.get(chunk, ())))


def _small_files(layout: Layout) -> Iterator[AllowedFile]:
    paths = {path: kind for folder, kind in _FOLDERS.items() for path in layout.medium.walk(folder)} | _FILES
    if (streams := read_parity(layout)) is not None:
        paths |= dict.fromkeys((LIST_FILE, *(path for path, _ in streams.pieces)), PARITY)
    for path, kind in paths.items():
        data = layout.medium.read(path, 4 * MAX_FILE_BYTES)
        if data is not None:
            yield AllowedFile(path, len(data), sha256(data), kind, "")


def _no_formula(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
