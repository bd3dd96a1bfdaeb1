"""The delta: which blobs are carried to a place that holds some of a bundle already (FORMAT 4).

Owns the comparison of blobs alone: digests in, blobs out, no byte read. `diff`, sticks and the figures all use
it, so that what is announced is what is carried. It must never decide what to trust: a reader hashes its own copy of a
blob that is left out (threat T25).

Rules:
- a blob is carried once, for the first file that needs it, in the order of the contents;
- the manifest and `contents.json` are always carried whole: from them a reader knows what it may take from elsewhere;
- which file a held blob belongs to does not matter: a file that was renamed or moved carries nothing;
- `BOOT/` is for a host without a program. A place that holds a bundle has one, and it is carried only where that
  program cannot read the new bundle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from bundles.bundle import Bundle
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import Contents, File
from signing.digest import Digest


@dataclass(frozen=True)
class FileDelta:
    """What one file of the new bundle needs.

    Args:
        file: of the new bundle.
        blobs: those that are carried for it; empty where everything is there, or carried for a file before it.
    """

    file: File
    blobs: tuple[Chunk, ...]

    @property
    def size_bytes(self) -> int:
        """How many bytes are carried for this file."""
        return sum(chunk.size for chunk in self.blobs)


@dataclass(frozen=True)
class Delta:
    """What is carried.

    Args:
        documents: the manifest and `contents.json`.
        files: every file of the new bundle, in its order.
    """

    documents: tuple[Chunk, ...]
    files: tuple[FileDelta, ...]

    @property
    def blobs(self) -> tuple[Chunk, ...]:
        """Every blob that is carried, once, the documents first."""
        return (*self.documents, *(chunk for entry in self.files for chunk in entry.blobs))

    @property
    def size_bytes(self) -> int:
        """How many bytes of blobs are carried; metadata and signatures, some kilobytes, come on top."""
        return sum(chunk.size for chunk in self.blobs)


def delta(new: Bundle, held: Collection[Digest]) -> Delta:
    """Which blobs of a bundle have to be carried to a place that holds others.

    Args:
        new: the bundle that is wanted there; verified.
        held: digests of what is there, for example `held_by` of the bundle that it runs; only ever a reason to leave
            something out.
    """
    documents = (Chunk(new.manifest, new.manifest_size), new.config)
    return Delta(documents, missing(new.contents.files, held))


def needs_boot(new: Contents, reads: int) -> bool:
    """Whether a delta carries `BOOT/`: where the program of its place does not read the new bundle.

    Args:
        new: contents of the bundle that is wanted there; verified.
        reads: the newest format of `contents.json` that the program there reads, as a receipt states it. Where that
            is not known, `min_reader` of the bundle that is there.
    """
    return new.min_reader > reads


def missing(files: Iterable[File], held: Collection[Digest]) -> tuple[FileDelta, ...]:
    """Files of a bundle, in its order, each with the blobs that are to be carried for it. Arguments as for `delta`."""
    seen = set(held)
    found = []
    for file in files:
        blobs = dict.fromkeys(chunk for chunk in file.chunks if chunk.sha256 not in seen)
        seen.update(chunk.sha256 for chunk in blobs)
        found.append(FileDelta(file, tuple(blobs)))
    return tuple(found)


def held_by(*contents: Contents) -> frozenset[Digest]:
    """The digests of every chunk that a place with these contents holds."""
    return frozenset(digest for one in contents for digest in _digests(one.files))


def _digests(files: Iterable[File]) -> Iterable[Digest]:
    return (chunk.sha256 for file in files for chunk in file.chunks)
