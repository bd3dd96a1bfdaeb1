"""Reads the fields that `contents.json` may have since format 2 (FORMAT 3.4).

Owns JSON to the types of `bundles.contents.format_2`, and the rules between those fields and the files. It must never
open a file.

Rules:
- a field that does not apply is left out: an empty list or null in its place is a refusal;
- lists whose order means nothing are sorted, each entry once;
- a file of a kind of format 2 lies in that kind's folder, and such a folder holds no other kind.
"""

from __future__ import annotations

import re

from bundles.contents.contents import FOLDERS, FORMAT, Contents
from bundles.contents.format_2 import (
    MAX_RANK,
    SITE_KINDS,
    Adapter,
    AdapterBase,
    AdapterLineage,
    SitePermission,
    StateFormats,
    TemplateAcceptance,
)
from bundles.contents.json_object import JsonObject, is_day, refuse
from bundles.contents.lineage import read_lineage
from bundles.contents.paths import check_path, check_unique

_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,6})(?:\.[0-9]{0,8}[1-9])?\Z")
_WORD = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,60}[a-z0-9])?\Z")


def read_acceptance(value: JsonObject) -> TemplateAcceptance:
    """The acceptance of a chat template.

    Raises:
        NotTrustedError: another field or type, or no day of the calendar.
    """
    value.only({"by", "date", "sha256"})
    return TemplateAcceptance(value.text("by"), _day(value, "date"), value.digest("sha256"))


def read_paths(value: JsonObject, name: str) -> tuple[str, ...]:
    """A sorted list of at least one path.

    Raises:
        NotTrustedError: another type or order, or a path outside the grammar.
    """
    return _sorted(value, name, tuple(check_path(item) for item in value.list(name)))


def read_state(value: JsonObject) -> StateFormats:
    """The formats of stored state.

    Raises:
        NotTrustedError: another field, type or order, or `writes` is not in `reads`.
    """
    value.only({"reads", "writes"})
    numbers = value.list("reads")
    reads = tuple(JsonObject({"reads": number}, value.subject).integer("reads", low=1) for number in numbers)
    if not reads or any(one >= other for one, other in zip(reads, reads[1:])):
        raise refuse(f"{value.subject} reads", "rising numbers, at least one", repr(numbers)[:80])
    return StateFormats(reads, value.one_of("writes", reads))


def read_site(value: JsonObject) -> SitePermission:
    """What a site may add.

    Raises:
        NotTrustedError: another field or order, or a kind that no site may add.
    """
    value.only({"kinds"})
    kinds = tuple(
        JsonObject({"kinds": item}, value.subject).one_of("kinds", SITE_KINDS) for item in value.list("kinds")
    )
    return SitePermission(_sorted(value, "kinds", kinds))


def read_adapter(value: JsonObject) -> Adapter:
    """One adapter.

    Raises:
        NotTrustedError: another field or type, a name or number outside its grammar.
    """
    names = {"name", "path", "base", "rank", "alpha", "tensors", "labels", "licence", "lineage"}
    value.only(names, optional={"labels"})
    base, lineage = value.child("base"), value.child("lineage")
    base.only({"sha256", "tensors"})
    lineage.only({"dataset", "parent", "source"}, optional={"source"})
    labels = (
        tuple(_word(label, f"{value.subject} labels") for label in value.list("labels")) if value.has("labels") else ()
    )
    return Adapter(
        name=_word(value.text("name"), f"{value.subject} name"),
        path=check_path(value.text("path")),
        base=AdapterBase(base.digest("sha256"), base.digest("tensors")),
        rank=value.integer("rank", low=1, high=MAX_RANK),
        alpha=_decimal(value, "alpha"),
        tensors=value.digest("tensors"),
        labels=_sorted(value, "labels", labels) if labels else (),
        licence=value.text("licence"),
        lineage=AdapterLineage(
            dataset=lineage.digest("dataset") if lineage.has("dataset") else None,
            parent=lineage.digest("parent") if lineage.has("parent") else None,
            source=read_lineage(lineage.child("source")) if lineage.has("source") else None,
        ),
    )


def check_format_2(contents: Contents, subject: str) -> None:
    """Check what no single field shows: tasks, golden sets, adapters, folders, and a bundle without a runtime.

    Raises:
        NotTrustedError: naming the model, adapter, file or field that breaks a rule.
    """
    for model in contents.models:
        if model.task and (model.task == "embed") != (model.embedding > 0):
            raise refuse(f"{subject} model {model.name} task", "embed exactly where embedding is stated", model.task)
        if model.template_accepted and model.template is None:
            raise refuse(f"{subject} model {model.name} template_accepted", "a model with a template", "none")
        for path in model.golden:
            _check_file(contents, path, "golden-set", f"{subject} model {model.name} golden")
    check_unique((adapter.name for adapter in contents.adapters), f"{subject} adapters")
    for adapter in contents.adapters:
        if adapter.path.split("/")[:2] != ["adapters", adapter.name] or adapter.path.count("/") != 2:
            wanted = f"a file in adapters/{adapter.name}/"
            raise refuse(f"{subject} adapter {adapter.name} path", wanted, adapter.path)
        _check_file(contents, adapter.path, "adapter", f"{subject} adapter {adapter.name}")
    if contents.format == FORMAT:
        _check_folders(contents, subject)
    if contents.is_light:
        _check_light(contents, subject)


def _check_file(contents: Contents, path: str, kind: str, subject: str) -> None:
    file = contents.by_path.get(path)
    if file is None or file.kind != kind or (kind == "adapter" and file.fsverity is None):
        proved = " with an fs-verity digest" if kind == "adapter" else ""
        raise refuse(subject, f"a listed file of kind {kind}{proved}", path)


def _check_folders(contents: Contents, subject: str) -> None:
    kinds = {folder: kind for kind, folder in FOLDERS.items()}
    for file in contents.files:
        parts = file.path.split("/")
        if file.kind in FOLDERS or parts[0] in kinds:
            folder, depth = FOLDERS.get(file.kind, ""), 3 if file.kind == "tool-server" else 2
            if parts[0] != folder or len(parts) < depth:
                wanted = f"below {folder}/{'<name>/' if depth > 2 else ''}" if folder else f"not below {parts[0]}/"
                raise refuse(f"{subject} {file.path}", f"a file of kind {file.kind} {wanted}", file.path)


def _check_light(contents: Contents, subject: str) -> None:
    if contents.models:
        raise refuse(f"{subject} models", "none in a bundle without a runtime", contents.models[0].name)


def _sorted(value: JsonObject, name: str, items: tuple[str, ...]) -> tuple[str, ...]:
    if not items or any(one >= other for one, other in zip(items, items[1:])):
        raise refuse(f"{value.subject} {name}", "a sorted list, each entry once, at least one", repr(items)[:80])
    return items


def _word(text: object, subject: str) -> str:
    # A name that users write after a model's name and an @, or a label: no file is called so.
    if not isinstance(text, str) or not _WORD.match(text):
        raise refuse(subject, "1 to 62 characters of a-z 0-9 . _ -, a letter or digit at both ends", repr(text)[:80])
    return text


def _decimal(value: JsonObject, name: str) -> str:
    text = value.text(name)
    if not _DECIMAL.match(text) or text == "0":
        raise refuse(f"{value.subject} {name}", "a decimal number above 0, such as 16 or 0.5", repr(text)[:80])
    return text


def _day(value: JsonObject, name: str) -> str:
    text = value.text(name)
    if not is_day(text):
        raise refuse(f"{value.subject} {name}", "a day such as 2026-01-31", repr(text)[:80])
    return text
