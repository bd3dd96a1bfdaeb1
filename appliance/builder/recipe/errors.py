"""The mistakes of a recipe, each with file, line, column and field.

Owns how an error of YAML or of the model becomes one of ours. It must never decide what is a mistake: the model does.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from signing.errors import UsageError

_KINDS = {
    "tag:yaml.org,2002:int": "a number",
    "tag:yaml.org,2002:float": "a number",
    "tag:yaml.org,2002:bool": "true or false",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:timestamp": "a date",
}
_QUOTABLE = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")


def recipe_error(where: str, expected: str, found: str, hint: str = "") -> UsageError:
    """One mistake of a recipe; `where` is `file:line:column field`."""
    return UsageError("recipe.invalid", where, expected=expected, found=found, hint=hint)


def combine(errors: Sequence[UsageError]) -> UsageError:
    """Several mistakes as one error; the first carries the others."""
    errors[0].others = tuple(errors[1:])
    return errors[0]


def find_duplicates(node: yaml.Node | None, path: Path) -> list[UsageError]:
    """The keys that stand twice in one mapping: YAML would silently take the last.

    A merge (`<<`) is refused, too: it copies one mapping into another, and a few lines of merges fill the memory.
    """
    found = []
    for mapping in _mappings(node):
        seen: set[str] = set()
        for key, _ in mapping.value:
            if key.tag == "tag:yaml.org,2002:merge":
                found.append(recipe_error(_at(path, key), "fields", "a merge (<<)", "write the fields themselves"))
            elif isinstance(key.value, str) and key.value in seen:
                found.append(recipe_error(f"{_at(path, key)} {key.value}", "each field once", "a second one"))
            seen.add(str(key.value))
    return found


def _mappings(root: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    # An alias may lead back to a node above it.
    waiting, done = [root], set()
    while waiting:
        node = waiting.pop(0)
        if node is None or id(node) in done:
            continue
        done.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def locate(
    errors: Sequence[ErrorDetails], root: yaml.Node | None, model: type[BaseModel], path: Path
) -> list[UsageError]:
    """The mistakes found by the model, each with its place in the file, in the order of the file.

    Args:
        errors: of `pydantic.ValidationError.errors`.
        root: the composed document.
        model: of the whole recipe.
        path: the recipe's file.
    """
    places = {error["loc"] for error in errors}
    # pydantic also reports a list as too short where its only entry is wrong: the entry's own error is clearer.
    inner = [
        error
        for error in errors
        if not any(len(place) > len(error["loc"]) and place[: len(error["loc"])] == error["loc"] for place in places)
    ]
    inner.sort(key=lambda error: _position(_node(root, error["loc"], key=True)))
    return [_located(error, root, model, path) for error in inner]


def _position(node: yaml.Node | None) -> tuple[int, int]:
    return (node.start_mark.line, node.start_mark.column) if node else (0, 0)


def _located(error: ErrorDetails, root: yaml.Node | None, model: type[BaseModel], path: Path) -> UsageError:
    place = error["loc"]
    if error["type"] == "extra_forbidden":
        return _unknown_field(place, root, model, path)
    is_missing = error["type"] == "missing"
    node = _node(root, place[:-1] if is_missing else place)
    expected = _expected(error, _description(model, place))
    found = "nothing" if is_missing else _found(node, is_of_wrong_type=error["type"].endswith("_type"))
    # YAML reads a version of two numbers as a fraction: in quotes it would still lack its third number.
    is_quotable = node is not None and node.tag in _QUOTABLE and "string" in error["type"] and place != ("version",)
    hint = f'write it in quotes: "{node.value}"' if node and is_quotable else ""
    return recipe_error(f"{_at(path, node)} {_name(place)}".rstrip(), expected, found, hint)


def _expected(error: ErrorDetails, description: str) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return description or error["msg"]


def _unknown_field(
    place: tuple[int | str, ...], root: yaml.Node | None, model: type[BaseModel], path: Path
) -> UsageError:
    fields = list(_model(model, place[:-1]).model_fields)
    name = str(place[-1])
    close = difflib.get_close_matches(name, fields, n=1)
    return recipe_error(
        f"{_at(path, _node(root, place, key=True))} {_name(place)}",
        "one of the fields " + ", ".join(fields),
        f"the unknown field {name}",
        f"did you mean {close[0]}?" if close else "",
    )


def _name(place: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def _at(path: Path, node: yaml.Node | None) -> str:
    mark = node.start_mark if node else None
    return f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else f"{path}:1:1"


def _node(root: yaml.Node | None, place: tuple[int | str, ...], key: bool = False) -> yaml.Node | None:
    node = root
    for number, part in enumerate(place):
        is_key = key and number == len(place) - 1
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
        elif isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == str(part)), None)
            if pair is None:
                return node
            node = pair[0] if is_key else pair[1]
    return node


def _found(node: yaml.Node | None, is_of_wrong_type: bool) -> str:
    if isinstance(node, yaml.ScalarNode):
        kind = _KINDS.get(node.tag, "text" if is_of_wrong_type else None)
        return kind if kind == "nothing" else f"{node.value[:80]!r}" + (f" ({kind})" if kind else "")
    if isinstance(node, yaml.SequenceNode):
        return f"a list of {len(node.value)}"
    return "a mapping" if isinstance(node, yaml.MappingNode) else "nothing"


def _description(model: type[BaseModel], place: tuple[int | str, ...]) -> str:
    # Of the innermost field on the way that has a description.
    text = "a mapping with " + ", ".join(model.model_fields)
    current: type[BaseModel] | None = model
    for part in place:
        if isinstance(part, str) and current is not None and part in current.model_fields:
            field = current.model_fields[part]
            text = field.description or text
            current = _inner(field.annotation)
    return text


def _model(model: type[BaseModel], place: tuple[int | str, ...]) -> type[BaseModel]:
    current = model
    for part in place:
        if isinstance(part, str):
            current = _inner(current.model_fields[part].annotation) or current
    return current


def _inner(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _inner(part))), None)
