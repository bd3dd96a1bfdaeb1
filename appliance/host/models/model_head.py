"""The head of a model: everything in a GGUF file before the weights.

Owns how a head is read, from a file or out of a bundle. It never reads weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from bundles.chunks.source import ChunkSource
from bundles.chunks.stream import ChunkStream
from bundles.contents.contents import Contents, File, Model
from bundles.gguf.foreign import FIRST_BYTES, PLAIN_TEXT, name_foreign
from bundles.gguf.header import GgufHeader, read_header
from signing.errors import NotTrustedError, UsageError


@dataclass(frozen=True, slots=True)
class ModelHead:
    """A model's name, its parsed header, and the bytes of that header in the file."""

    name: str
    header: GgufHeader
    data: bytes = field(repr=False)


def head_of_file(path: Path, name: str) -> ModelHead:
    """Read the head of a GGUF file.

    Args:
        path: untrusted.
        name: of the model.

    Raises:
        NotTrustedError: a rule of `bundles.gguf.header` is broken.
        UsageError: the file is missing or unreadable.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = read_header(file, size, path.name)
            file.seek(0)
            return ModelHead(name, header, file.read(header.data_start))
    except OSError as error:
        found = (error.strerror or str(error)).lower()
        raise UsageError("plan.unreadable", str(path), expected="a GGUF file", found=found) from None


def head_of_bundle(source: ChunkSource, contents: Contents, model: Model) -> ModelHead:
    """Read the head of a model of a bundle or stick; only the blobs that hold it are read.

    Args:
        source: untrusted.
        contents: verified.
        model: one of the contents'.

    Raises:
        DamagedError: a blob is missing or differs.
        NextStickError: a blob is on a stick that is not here.
        NotTrustedError: the file is no model, or its header breaks a rule of `bundles.gguf.header`.
    """
    file = contents.by_path[model.path]
    header = read_header(cast(BinaryIO, _ByBlob(_stream(source, file))), file.size, model.path)
    return ModelHead(model.name, header, _stream(source, file).read(header.data_start))


class _ByBlob:
    """A stream that stops where a blob ends: who reads ahead then reads no weights, since they have their own blobs."""

    def __init__(self, stream: ChunkStream) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        """Some of the next bytes; none only where the file ends."""
        return self._stream.read_some(size)


def is_model_file(path: Path) -> bool:
    """Whether a file is meant as a model: by its name, or since it is no text. A recipe is text."""
    try:
        with path.open("rb") as file:
            start = file.read(FIRST_BYTES)
    except OSError:
        return False
    return path.suffix == ".gguf" or name_foreign(start) != PLAIN_TEXT


def _stream(source: ChunkSource, file: File) -> ChunkStream:
    if file.kind != "model":
        raise NotTrustedError("contents.model", file.path, expected="a file of kind model", found=file.kind)
    return ChunkStream(source, file)
