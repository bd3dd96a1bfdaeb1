"""`contents.json`: the closed list of a bundle's files, and what a host must be.

Owns the types (FORMAT 3); `bundles.contents.contents_json` serializes them. It must never open a file or decide who
signed.

Rules:
- a file that is not listed does not belong to the bundle;
- the format follows from what is stated: 2 where a part of `bundles.contents.format_2` is used, else 1;
- everything here is frozen, and was checked when it was read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bundles.chunks.chunk import Chunk
from bundles.contents.lineage import Lineage
from signing.digest import Digest

if TYPE_CHECKING:  # few bundles use format 2, and the start of a check is to be short
    from bundles.contents.format_2 import Adapter, SitePermission, StateFormats, TemplateAcceptance

FORMAT = 2
"""The newest format that this version reads and writes."""
FORMAT_1_KINDS = (
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
FOLDERS = {"advisory": "advisories", "doc": "docs", "golden-set": "golden", "tool-server": "servers"}
"""The kinds of file of format 2, with the folder in which files of that kind lie, and no others."""
KINDS = (*FORMAT_1_KINDS, *FOLDERS)
"""The kinds of file; those of `FOLDERS` came with format 2."""
TASKS = ("chat", "embed", "rerank")
"""What a model may be for."""
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
        fsverity: the fs-verity digest; models and listed adapters only, else None.
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
        task: of `TASKS`, as stated; empty where it is not stated: `purpose` is what counts.
        template_accepted: who accepted its template, where the linter refuses it by judgement.
        golden: the files of kind `golden-set` whose prompts it must answer, sorted.
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
    task: str = ""
    template_accepted: TemplateAcceptance | None = None
    golden: tuple[str, ...] = ()

    @property
    def purpose(self) -> str:
        """What the model is for: `chat`, `embed` or `rerank`."""
        return self.task or ("embed" if self.embedding else "chat")

    @property
    def is_format_2(self) -> bool:
        """Whether it states anything that came with format 2."""
        return bool(self.task or self.template_accepted or self.golden)


@dataclass(frozen=True)
class Target:
    """A system that this bundle can be installed on, for example debian-12, x86_64, Python 3.11."""

    os: str
    arch: str
    python: tuple[str, ...]


@dataclass(frozen=True)
class Needs:
    """What a host must have: lowest ABI versions, CPU variants, bytes of memory and disk, GPU driver or None.

    A version is empty, and there are no variants, only in a bundle without a runtime that does not need them.
    """

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
    """The whole of `contents.json`.

    Args:
        name, version: of the bundle.
        source_date_epoch: the date of everything in it, in seconds since 1970.
        targets: systems that it is for.
        needs: what a host must have.
        serve: defaults for serving; without meaning in a bundle without a runtime.
        models: none in a bundle without a runtime.
        files: every file, sorted by path.
        adapters: LoRA adapters of this bundle.
        state: formats of stored state; None means that format 1 is read and written.
        site: what a site may add; None means nothing.

    `format` and `min_reader` are computed: both 2 where anything of format 2 is used, else 1.
    """

    name: str
    version: str
    source_date_epoch: int
    targets: tuple[Target, ...]
    needs: Needs
    serve: Serve
    models: tuple[Model, ...]
    files: tuple[File, ...]
    adapters: tuple[Adapter, ...] = ()
    state: StateFormats | None = None
    site: SitePermission | None = None
    format: int = field(default=1, init=False)
    min_reader: int = field(default=1, init=False)
    by_path: dict[str, File] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.by_path.update((file.path, file) for file in self.files)
        if self.format_2_parts:
            object.__setattr__(self, "format", FORMAT)
            object.__setattr__(self, "min_reader", FORMAT)

    @property
    def format_2_parts(self) -> tuple[str, ...]:
        """Names of what this bundle uses that came with format 2; empty where every program can read it."""
        parts = [name for name in ("adapters", "state", "site") if getattr(self, name)]
        parts += ["no runtime"] if self.is_light else []
        parts += [f"model {model.name}" for model in self.models if model.is_format_2]
        return (*parts, *(kind for kind in FOLDERS if self.of_kind(kind)))

    @property
    def is_light(self) -> bool:
        """Whether it holds no runtime: what it brings is for a release that has one."""
        return not self.of_kind("runtime")

    def of_kind(self, *kinds: str) -> tuple[File, ...]:
        """The files of the given kinds, in path order."""
        return tuple(file for file in self.files if file.kind in kinds)

    @property
    def size_bytes(self) -> int:
        """The sum of all files, in bytes."""
        return sum(file.size for file in self.files)
