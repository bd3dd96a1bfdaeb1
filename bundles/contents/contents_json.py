"""Reads and writes `contents.json` (FORMAT 3): one value has one form.

Owns bytes to `Contents` and back. It must never open a file: the bytes it reads were named by the signed manifest.

Rules:
- the bytes are canonical JSON; an unknown or missing field is a refusal, and a newer format is reported as newer;
- paths follow `bundles.contents.paths`, are sorted, and unique without regard to case;
- chunks are 1 byte to 64 MiB each and add up to the file's size; an empty file has none;
- a model's file is listed, of kind `model`, and carries its fs-verity digest.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Callable, TypeVar

from bundles.chunks.chunk import MAX_CHUNK_BYTES, Chunk
from bundles.contents.contents import (
    FORMAT,
    KINDS,
    MAX_CONTENTS_BYTES,
    MODES,
    Contents,
    File,
    Member,
    Model,
    Needs,
    Serve,
    Target,
)
from bundles.contents.lineage import Lineage
from bundles.contents.paths import check_name, check_path, check_unique
from signing.digest import Digest, parse_digest
from signing.errors import ApplianceError, NotTrustedError
from signing.strictjson import load_canonical, to_file

T = TypeVar("T")
_NAME = "contents.json"
_OPTIONAL_FILE_FIELDS = {"fsverity", "bootstrap", "record", "members"}
_OPTIONAL_MODEL_FIELDS = {"embedding"}


def parse_contents(data: bytes) -> Contents:
    """Turn the bytes of `contents.json` into `Contents`.

    Args:
        data: at most 64 MiB, already named by a signed manifest.

    Raises:
        NotTrustedError: a rule of this module is broken.
    """
    value = _Reader(load_canonical(data, _NAME, MAX_CONTENTS_BYTES), _NAME)
    _check_format(value)
    value.only({spec.name for spec in fields(Contents)} - {"by_path"})
    contents = Contents(
        format=FORMAT,
        min_reader=value.integer("min_reader"),
        name=check_name(value.text("name")),
        version=check_name(value.text("version")),
        source_date_epoch=value.integer("source_date_epoch"),
        targets=value.each("targets", _target),
        needs=_needs(value.child("needs")),
        serve=_serve(value.child("serve")),
        models=value.each("models", _model),
        files=value.each("files", _file),
    )
    check_contents(contents)
    return contents


def check_contents(contents: Contents) -> None:
    """Check what no single field shows: order, uniqueness, and that models point at model files.

    Raises:
        NotTrustedError: naming the path or model that breaks a rule.
    """
    paths = [file.path for file in contents.files]
    if paths != sorted(paths):
        raise _refuse(_NAME, "files sorted by path", "another order")
    check_unique(paths, _NAME)
    check_unique((model.name for model in contents.models), f"{_NAME} models")
    for model in contents.models:
        file = contents.by_path.get(model.path)
        if file is None or file.kind != "model" or file.fsverity is None:
            raise _refuse(
                f"{_NAME} model {model.name}", "a listed file of kind model with an fs-verity digest", model.path
            )


def write_contents(contents: Contents) -> bytes:
    """Serialize `Contents`; `parse_contents` of them gives the same value.

    Raises:
        NotTrustedError: the value breaks a rule, so no reader would accept it.
    """
    value = {spec.name: _plain(getattr(contents, spec.name)) for spec in fields(contents) if spec.name != "by_path"}
    data = to_file(value)
    if parse_contents(data) != contents:
        raise _refuse(_NAME, "a value that reads back equal", "another value")
    return data


def _check_format(value: _Reader) -> None:
    needed = max(value.integer("format"), value.integer("min_reader"))
    if needed > FORMAT:
        raise ApplianceError(
            "contents.newer-format",
            _NAME,
            expected=f"format {FORMAT}",
            found=f"format {needed}",
            hint="update the appliance on this machine first",
        )
    if value.integer("format") != FORMAT:
        raise _refuse(_NAME, f"format {FORMAT}", f"format {value.integer('format')}")


def _target(value: _Reader) -> Target:
    value.only({"os", "arch", "python"})
    return Target(value.text("os"), value.text("arch"), value.texts("python"))


def _serve(value: _Reader) -> Serve:
    value.only({"slots"})
    return Serve(slots=value.integer("slots", low=1))


def _needs(value: _Reader) -> Needs:
    value.only({spec.name for spec in fields(Needs)})
    return Needs(
        glibc=value.text("glibc"),
        glibcxx=value.text("glibcxx"),
        cxxabi=value.text("cxxabi"),
        cpu_variants=value.texts("cpu_variants"),
        ram_bytes=value.integer("ram_bytes"),
        disk_bytes=value.integer("disk_bytes"),
        gpu_driver=value.text("gpu_driver") if value.has("gpu_driver") else None,
    )


def _model(value: _Reader) -> Model:
    value.only({spec.name for spec in fields(Model)}, optional=_OPTIONAL_MODEL_FIELDS)
    lineage = value.child("lineage")
    lineage.only({spec.name for spec in fields(Lineage)})
    return Model(
        name=check_path(value.text("name")),
        path=check_path(value.text("path")),
        architecture=value.text("architecture"),
        parameters=value.integer("parameters"),
        quantisation=value.text("quantisation"),
        context=value.integer("context", low=1),
        tensors=value.digest("tensors"),
        template=value.digest("template") if value.has("template") else None,
        licence=value.text("licence"),
        lineage=Lineage(
            source=lineage.text("source"),
            sha256=lineage.digest("sha256"),
            size=lineage.integer("size"),
            steps=lineage.texts("steps"),
        ),
        embedding=value.integer("embedding", low=1) if value.has("embedding") else 0,
    )


def _file(value: _Reader) -> File:
    value.only({spec.name for spec in fields(File)}, optional=_OPTIONAL_FILE_FIELDS)
    file = File(
        path=check_path(value.text("path")),
        kind=value.one_of("kind", KINDS),
        mode=value.one_of("mode", MODES),
        size=value.integer("size"),
        sha256=value.digest("sha256"),
        chunks=_chunks(value),
        fsverity=value.digest("fsverity") if value.has("fsverity") else None,
        bootstrap=value.flag("bootstrap") if value.has("bootstrap") else False,
        record=value.digest("record") if value.has("record") else None,
        members=value.each("members", _member) if value.has("members") else (),
    )
    if sum(chunk.size for chunk in file.chunks) != file.size:
        raise _refuse(value.subject, f"chunks that add up to {file.size} bytes", "another sum")
    return file


def _chunks(value: _Reader) -> tuple[Chunk, ...]:
    chunks = []
    for pair in value.list("chunks"):
        if not isinstance(pair, list) or len(pair) != 2 or type(pair[1]) is not int:
            raise _refuse(value.subject, "chunks as [sha256, size]", repr(pair)[:80])
        if not 0 < pair[1] <= MAX_CHUNK_BYTES:
            raise _refuse(value.subject, f"chunks of 1 to {MAX_CHUNK_BYTES} bytes", f"{pair[1]} bytes")
        chunks.append(Chunk(parse_digest(pair[0], value.subject), pair[1]))
    return tuple(chunks)


def _member(value: _Reader) -> Member:
    value.only({spec.name for spec in fields(Member)})
    return Member(
        path=check_path(value.text("path")),
        size=value.integer("size"),
        sha256=value.digest("sha256"),
        fsverity=value.digest("fsverity"),
        mode=value.one_of("mode", MODES),
    )


def _plain(value: Any) -> Any:
    # Files and models leave out what they do not have, so that a bundle of thousands of small files stays small.
    if isinstance(value, Chunk):
        return [value.sha256, value.size]
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        pairs = {spec.name: _plain(getattr(value, spec.name)) for spec in fields(value)}
        optional = {File: _OPTIONAL_FILE_FIELDS, Model: _OPTIONAL_MODEL_FIELDS}.get(type(value), set())
        return {name: item for name, item in pairs.items() if item or name not in optional}
    return value


class _Reader:
    """A JSON object that gives its fields by type, or refuses, naming the place."""

    def __init__(self, value: object, subject: str) -> None:
        if not isinstance(value, dict):
            raise _refuse(subject, "an object", type(value).__name__)
        self.value: dict[str, Any] = value
        self.subject = subject

    def only(self, names: set[str], optional: set[str] | None = None) -> None:
        missing = sorted(names - (optional or set()) - set(self.value))
        extra = sorted(set(self.value) - names)
        if missing or extra:
            raise _refuse(self.subject, f"fields {', '.join(sorted(names))}", f"missing {missing}, unknown {extra}")

    def has(self, name: str) -> bool:
        return self.value.get(name) is not None

    def text(self, name: str) -> str:
        item = self.value.get(name)
        if not isinstance(item, str) or not 0 < len(item) <= 1024 or not item.isprintable():
            raise _refuse(f"{self.subject} {name}", "1 to 1024 printable characters", repr(item)[:80])
        return item

    def texts(self, name: str) -> tuple[str, ...]:
        items = self.list(name)
        return tuple(_Reader({name: item}, self.subject).text(name) for item in items)

    def integer(self, name: str, low: int = 0) -> int:
        item = self.value.get(name)
        if type(item) is not int or item < low:
            raise _refuse(f"{self.subject} {name}", f"an integer of at least {low}", repr(item)[:80])
        return item

    def flag(self, name: str) -> bool:
        item = self.value.get(name)
        if not isinstance(item, bool):
            raise _refuse(f"{self.subject} {name}", "true or false", repr(item)[:80])
        return item

    def one_of(self, name: str, allowed: tuple[T, ...]) -> T:
        item = self.value.get(name)
        for choice in allowed:
            if type(item) is type(choice) and item == choice:
                return choice
        raise _refuse(f"{self.subject} {name}", f"one of {', '.join(map(str, allowed))}", repr(item)[:80])

    def digest(self, name: str) -> Digest:
        return parse_digest(self.value.get(name), f"{self.subject} {name}")

    def list(self, name: str) -> list[Any]:
        item = self.value.get(name)
        if not isinstance(item, list):
            raise _refuse(f"{self.subject} {name}", "a list", type(item).__name__)
        return item

    def child(self, name: str) -> _Reader:
        return _Reader(self.value.get(name), f"{self.subject} {name}")

    def each(self, name: str, read: Callable[[_Reader], T]) -> tuple[T, ...]:
        return tuple(read(_Reader(item, f"{self.subject} {name}[{at}]")) for at, item in enumerate(self.list(name)))


def _refuse(subject: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError("contents.refused", subject, expected=expected, found=found)
