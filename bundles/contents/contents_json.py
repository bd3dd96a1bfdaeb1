"""Reads and writes `contents.json` (FORMAT 3): one value has one form.

Owns bytes to `Contents` and back. It must never open a file: the bytes it reads were named by the signed manifest.

Rules:
- the bytes are canonical JSON; an unknown or missing field is a refusal, and a newer format is reported as newer;
- one value has one form: `format` is the lowest that can state it, and what does not apply is left out;
- paths follow `bundles.contents.paths`, are sorted, and unique without regard to case;
- chunks are 1 byte to 64 MiB each and add up to the file's size; an empty file has none;
- a model's file is listed, of kind `model`, and carries its fs-verity digest.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from bundles.chunks.chunk import MAX_CHUNK_BYTES, Chunk
from bundles.contents.contents import (
    FORMAT,
    KINDS,
    MAX_CONTENTS_BYTES,
    MODES,
    TASKS,
    Contents,
    File,
    Member,
    Model,
    Needs,
    Serve,
    Target,
)
from bundles.contents.json_object import JsonObject, refuse
from bundles.contents.lineage import read_lineage
from bundles.contents.paths import check_name, check_path, check_unique
from signing.digest import parse_digest
from signing.errors import ApplianceError
from signing.strictjson import load_canonical, to_file

if TYPE_CHECKING:
    from bundles.contents.format_2 import Adapter, SitePermission, StateFormats, TemplateAcceptance

_NAME = "contents.json"
_ABI = {"glibc", "glibcxx", "cxxabi", "cpu_variants", "gpu_driver"}
_OPTIONAL = {
    "File": {"fsverity", "bootstrap", "record", "members"},
    "Model": {"embedding", "task", "template_accepted", "golden"},
    "Contents": {"adapters", "state", "site"},
    "Adapter": {"labels"},
    "AdapterLineage": {"source"},
}
"""By the name of the type: those of format 2 are loaded with the first of them."""


def parse_contents(data: bytes) -> Contents:
    """Turn the bytes of `contents.json` into `Contents`.

    Args:
        data: at most 64 MiB, already named by a signed manifest.

    Raises:
        NotTrustedError: a rule of this module is broken.
    """
    value = JsonObject(load_canonical(data, _NAME, MAX_CONTENTS_BYTES), _NAME)
    stated = _check_format(value)
    files = value.each("files", _file)
    # Without a runtime nothing is served by the bundle itself: a program of a release elsewhere uses its files.
    is_light = stated > 1 and not any(file.kind == "runtime" for file in files)
    value.only(
        {spec.name for spec in fields(Contents)} - {"by_path"} - ({"serve"} if is_light else set()),
        _OPTIONAL["Contents"],
    )
    adapters, state, site = _parts(value)
    contents = Contents(
        name=check_name(value.text("name")),
        version=check_name(value.text("version")),
        source_date_epoch=value.integer("source_date_epoch"),
        targets=value.each("targets", _target),
        needs=_needs(value.child("needs"), is_light),
        serve=Serve() if is_light else _serve(value.child("serve")),
        models=value.each("models", _model),
        files=files,
        adapters=adapters,
        state=state,
        site=site,
    )
    _check_form(value, stated, contents)
    check_contents(contents)
    return contents


def _parts(value: JsonObject) -> tuple[tuple[Adapter, ...], StateFormats | None, SitePermission | None]:
    """The parts that came with format 2; what reads them is loaded with the first, since most bundles have none."""
    if not any(map(value.has, _OPTIONAL["Contents"])):
        return (), None, None
    from bundles.contents.format_2_json import read_adapter, read_site, read_state

    return (
        value.each("adapters", read_adapter) if value.has("adapters") else (),
        read_state(value.child("state")) if value.has("state") else None,
        read_site(value.child("site")) if value.has("site") else None,
    )


def _check_form(value: JsonObject, stated: int, contents: Contents) -> None:
    # A document of format 1 with a part of format 2 would be read by an older program that does not know the part.
    if stated != contents.format or value.integer("min_reader") != contents.min_reader:
        used = ", ".join(contents.format_2_parts) or "nothing that came later"
        raise refuse(
            _NAME,
            f"format and min_reader {contents.format}, for it uses {used}",
            f"{stated}, {value.value['min_reader']}",
        )
    plain = _plain(contents)
    differing = sorted(name for name in value.value if plain.get(name) != value.value[name])
    if differing:
        raise refuse(f"{_NAME} {differing[0]}", "fields that do not apply left out", "null, or an empty value")


def check_contents(contents: Contents) -> None:
    """Check what no single field shows: order, uniqueness, and that models point at model files.

    Raises:
        NotTrustedError: naming the path or model that breaks a rule.
    """
    paths = [file.path for file in contents.files]
    if paths != sorted(paths):
        raise refuse(_NAME, "files sorted by path", "another order")
    check_unique(paths, _NAME)
    check_unique((model.name for model in contents.models), f"{_NAME} models")
    for model in contents.models:
        file = contents.by_path.get(model.path)
        if file is None or file.kind != "model" or file.fsverity is None:
            raise refuse(
                f"{_NAME} model {model.name}", "a listed file of kind model with an fs-verity digest", model.path
            )
    if contents.format_2_parts:
        from bundles.contents.format_2_json import check_format_2

        check_format_2(contents, _NAME)


def write_contents(contents: Contents) -> bytes:
    """Serialize `Contents`; `parse_contents` of them gives the same value.

    Raises:
        NotTrustedError: the value breaks a rule, so no reader would accept it.
    """
    data = to_file(_plain(contents))
    if parse_contents(data) != contents:
        raise refuse(_NAME, "a value that reads back equal", "another value")
    return data


def _check_format(value: JsonObject) -> int:
    needed = max(value.integer("format"), value.integer("min_reader"))
    if needed > FORMAT:
        raise ApplianceError(
            "contents.newer-format",
            _NAME,
            expected=f"format {FORMAT} or lower",
            found=f"format {needed}",
            hint="this program is too old for it; begin with the sheet on paper: sh sheet.sh STICK. The stick's own "
            "program then installs it, and keeps what this host has pinned and its floors",
        )
    return value.integer("format", low=1)


def _target(value: JsonObject) -> Target:
    value.only({"os", "arch", "python"})
    return Target(value.text("os"), value.text("arch"), value.texts("python"))


def _serve(value: JsonObject) -> Serve:
    value.only({"slots"})
    return Serve(slots=value.integer("slots", low=1))


def _needs(value: JsonObject, is_light: bool) -> Needs:
    value.only({spec.name for spec in fields(Needs)}, optional=_ABI if is_light else None)

    def version(name: str) -> str:
        return value.text(name) if value.has(name) or not is_light else ""

    return Needs(
        glibc=version("glibc"),
        glibcxx=version("glibcxx"),
        cxxabi=version("cxxabi"),
        cpu_variants=value.texts("cpu_variants") if value.has("cpu_variants") or not is_light else (),
        ram_bytes=value.integer("ram_bytes"),
        disk_bytes=value.integer("disk_bytes"),
        gpu_driver=value.text("gpu_driver") if value.has("gpu_driver") else None,
    )


def _model(value: JsonObject) -> Model:
    value.only({spec.name for spec in fields(Model)}, optional=_OPTIONAL["Model"])
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
        lineage=read_lineage(value.child("lineage")),
        embedding=value.integer("embedding", low=1) if value.has("embedding") else 0,
        task=value.one_of("task", TASKS) if value.has("task") else "",
        template_accepted=_acceptance(value),
        golden=_golden(value),
    )


def _acceptance(value: JsonObject) -> TemplateAcceptance | None:
    if not value.has("template_accepted"):
        return None
    from bundles.contents.format_2_json import read_acceptance

    return read_acceptance(value.child("template_accepted"))


def _golden(value: JsonObject) -> tuple[str, ...]:
    if not value.has("golden"):
        return ()
    from bundles.contents.format_2_json import read_paths

    return read_paths(value, "golden")


def _file(value: JsonObject) -> File:
    value.only({spec.name for spec in fields(File)}, optional=_OPTIONAL["File"])
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
        raise refuse(value.subject, f"chunks that add up to {file.size} bytes", "another sum")
    return file


def _chunks(value: JsonObject) -> tuple[Chunk, ...]:
    chunks = []
    for pair in value.list("chunks"):
        if not isinstance(pair, list) or len(pair) != 2 or type(pair[1]) is not int:
            raise refuse(value.subject, "chunks as [sha256, size]", repr(pair)[:80])
        if not 0 < pair[1] <= MAX_CHUNK_BYTES:
            raise refuse(value.subject, f"chunks of 1 to {MAX_CHUNK_BYTES} bytes", f"{pair[1]} bytes")
        chunks.append(Chunk(parse_digest(pair[0], value.subject), pair[1]))
    return tuple(chunks)


def _member(value: JsonObject) -> Member:
    value.only({spec.name for spec in fields(Member)})
    return Member(
        path=check_path(value.text("path")),
        size=value.integer("size"),
        sha256=value.digest("sha256"),
        fsverity=value.digest("fsverity"),
        mode=value.one_of("mode", MODES),
    )


def _plain(value: Any) -> Any:
    # What does not apply is left out, so that a bundle of thousands of small files stays small.
    if isinstance(value, Chunk):
        return [value.sha256, value.size]
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        pairs = {spec.name: _plain(getattr(value, spec.name)) for spec in fields(value) if spec.name != "by_path"}
        optional = _OPTIONAL.get(type(value).__name__, set())
        pairs = {name: item for name, item in pairs.items() if item or name not in optional}
        return _without_abi(pairs) if isinstance(value, Contents) and value.is_light else pairs
    return value


def _without_abi(pairs: dict[str, Any]) -> dict[str, Any]:
    # In a bundle without a runtime: what it does not need of a host, and how a release would serve it.
    needs = {name: item for name, item in pairs["needs"].items() if item or name not in _ABI}
    return {**{name: item for name, item in pairs.items() if name != "serve"}, "needs": needs}
