"""`contents.json`: the closed list of a bundle's files, and what a host must be.

Owns the types (FORMAT 3); `bundles.contents.contents_json` serializes them. It must never open a file or decide who
signed.

Rules:
- a file that is not listed does not belong to the bundle;
- everything here is frozen, and was checked when it was read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bundles.chunks.chunk import Chunk
from bundles.contents.lineage import Lineage
from signing.digest import Digest

FORMAT = 1
KINDS = (
    "model",
    "adapter",
    "runtime",
    "wheel",
    "os-package",
    "playbook",
    "tool",
    "sbom",
    "provenance",
    "licence",
    "config",
)
MAX_CONTENTS_BYTES = 64 << 20
MODES = (0o644, 0o755)


@dataclass(frozen=True)
class Member:
    """A file inside a runtime wheel that the host takes out and runs.

    Args:
        path: its path inside the wheel.
        size: in bytes.
        sha256: of its bytes.
        fsverity: its fs-verity digest (SHA-256, 4 KiB blocks, no salt).
        mode: 0o644 or 0o755.
    """

    path: str
    size: int
    sha256: Digest
    fsverity: Digest
    mode: int


@dataclass(frozen=True)
class File:
    """One file of the bundle.

    Args:
        path: where it lies below the bundle's root, by the grammar of `bundles.contents.paths`.
        kind: one of `KINDS`.
        mode: 0o644 or 0o755.
        size: in bytes.
        sha256: of the whole file, for other people's tools; trust is in `chunks`.
        chunks: the blobs that it is made of, in order.
        fsverity: the fs-verity digest; models only, else None.
        bootstrap: whether a bare host needs it before Python packages exist.
        record: for wheels, tools and runtimes, the sha256 of the wheel's RECORD, against which an installed copy is
        checked. members: for runtimes, the programs and libraries that are taken out of the wheel.
    """

    path: str
    kind: str
    mode: int
    size: int
    sha256: Digest
    chunks: tuple[Chunk, ...]
    fsverity: Digest | None = None
    bootstrap: bool = False
    record: Digest | None = None
    members: tuple[Member, ...] = ()


@dataclass(frozen=True)
class Model:
    """One model of the bundle, as its GGUF header and the recipe describe it.

    Args:
        name: the name that users ask for; also the engine's.
        path: its file in `files`.
        architecture: `general.architecture` of the GGUF.
        parameters: number of weights.
        quantisation: for example `Q4_1`.
        context: tokens that the recipe serves; at most what the model was trained for.
        tensors: sha256 of the tensor table (FORMAT 5).
        template: sha256 of the chat template's UTF-8 bytes; None where it has none.
        licence: SPDX identifier.
        lineage: what it was made from.
        embedding: for a model that makes embeddings and does not chat, how many numbers one has; else 0.
    """

    name: str
    path: str
    architecture: str
    parameters: int
    quantisation: str
    context: int
    tensors: Digest
    template: Digest | None
    licence: str
    lineage: Lineage
    embedding: int = 0


@dataclass(frozen=True)
class Target:
    """A system that this bundle can be installed on, for example debian-12, x86_64, Python 3.11."""

    os: str
    arch: str
    python: tuple[str, ...]


@dataclass(frozen=True)
class Needs:
    """What a host must have: lowest ABI versions, CPU variants, bytes of memory and disk, GPU driver or None."""

    glibc: str
    glibcxx: str
    cxxabi: str
    cpu_variants: tuple[str, ...]
    ram_bytes: int
    disk_bytes: int
    gpu_driver: str | None = None


@dataclass(frozen=True)
class Serve:
    """Defaults for serving: parallel slots per engine."""

    slots: int = 4


@dataclass(frozen=True)
class Contents:
    """The whole of `contents.json`."""

    name: str
    version: str
    source_date_epoch: int
    targets: tuple[Target, ...]
    needs: Needs
    serve: Serve
    models: tuple[Model, ...]
    files: tuple[File, ...]
    format: int = FORMAT
    min_reader: int = FORMAT
    by_path: dict[str, File] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.by_path.update((file.path, file) for file in self.files)

    def of_kind(self, *kinds: str) -> tuple[File, ...]:
        """The files of the given kinds, in path order."""
        return tuple(file for file in self.files if file.kind in kinds)

    @property
    def size_bytes(self) -> int:
        """The sum of all files, in bytes."""
        return sum(file.size for file in self.files)
