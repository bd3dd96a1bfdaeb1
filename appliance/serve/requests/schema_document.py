"""One schema of a request as the engine will read it: its parts, its references, and the grammar that they make.

llama.cpp walks a schema by recursion, follows each reference wherever it points, and does some of it again for each
reference in `allOf` and `anyOf`. Without bounds a few lines end it, or keep it busy for ever.

Rules:
- a reference points to a part that stands in the place of a schema, and was checked as one;
- what is walked again for each reference is counted again, and never leads back to itself;
- names become names of rules, and are short;
- a bound beyond all whole numbers that JSON programs agree on is none: the 16 digits of the engine are its bound.

Source: llama.cpp, common/json-schema.cpp and common/json-schema-to-grammar.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from appliance.serve.requests.refusal import Refusal, refused_field
from appliance.serve.requests.schema_pattern import MAX_PATTERN_CHARS, MAX_PATTERN_REPEATS, write_pattern

MAX_REPEATS = 2000
"""Of one item or character: the limit of llama.cpp's grammars."""
MAX_NAME = 256
"""Characters in the name of a property or definition. llama.cpp walks the letters of one by recursion."""
MAX_HEIGHT = 300
"""Schemas within one another, where each reference leads into its target."""
MAX_BOUND = 10**15
"""Of a number: llama.cpp writes 16 digits."""
SAFE_BOUND = (1 << 53) - 1
"""Of JavaScript's whole numbers. Its schema libraries write it as the bound of a number that has none."""

MAPS = ("properties", "$defs", "definitions")
LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
SINGLE = ("items", "additionalProperties")
_UNIONS = ("anyOf", "oneOf", "allOf")
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_UPPER = ("maximum", "exclusiveMaximum")
_TYPES = (None, "object", "array", "string", "number", "integer", "boolean", "null")

Pointer = tuple[str, ...]


class SchemaDocument:
    """A schema with all its parts. `rules` is the size of the grammar that the engine makes of it.

    Args:
        schema: not deeper than a body may be. In place, its patterns are written anew, and bounds that are none go.
        field: that holds it.

    Raises:
        Refusal: a part has a value that the engine does not honour, a reference leads where it may not, or a part leads
            back to itself in a way that has no end.
    """

    def __init__(self, schema: dict[str, Any], field: str) -> None:
        self._parts: dict[Pointer, dict[str, Any]] = {}
        self._paths: dict[Pointer, str] = {}
        self._inner: dict[Pointer, list[Pointer]] = {}
        self._targets: dict[Pointer, Pointer] = {}
        self._sizes: dict[Pointer, int] = {}
        self._add(schema, (), field)
        for pointer, part in self._parts.items():
            self._sizes[pointer] = _count_own(part, self._paths[pointer])
            if "$ref" in part:
                self._targets[pointer] = self._resolve(part["$ref"], self._paths[pointer])
        self._check_height(field)
        written = self._walk((), {}, self._list_written, self._sizes)
        types: dict[Pointer, int | None] = {}
        tried = [
            self._walk(pointer, types, self._list_united, dict.fromkeys(self._parts, 1)) for pointer in self._parts
        ]
        self.rules = max(written, *tried)

    def path_beyond(self, rules: int) -> str:
        """The first part with which it makes more rules than so many; all of it where no part alone is too much."""
        for pointer, size in self._sizes.items():
            rules -= size
            if rules < 0:
                return self._paths[pointer]
        return self._paths[()]

    def _add(self, schema: dict[str, Any], pointer: Pointer, path: str) -> None:
        self._parts[pointer], self._paths[pointer] = schema, path
        inner = self._inner[pointer] = []
        for place, part in inner_parts(schema):
            if place[0] in MAPS and not 1 <= len(place[1]) <= MAX_NAME:
                raise _refused(path, place[0], f"A name in a schema has 1 to {MAX_NAME} characters.")
            if isinstance(part, dict):
                inner.append(pointer + place)
                name = (
                    f"[{place[1]}]"
                    if place[0] not in MAPS and len(place) > 1
                    else "".join(f".{one}" for one in place[1:])
                )
                self._add(part, pointer + place, f"{path}.{place[0]}{name}")

    def _resolve(self, reference: object, path: str) -> Pointer:
        target = tuple(reference[2:].split("/")) if isinstance(reference, str) and reference[:2] == "#/" else ()
        if not target or target not in self._parts:
            raise _refused(path, "$ref", "A reference leads to a schema in its own: #/$defs/NAME.")
        return target

    def _check_height(self, field: str) -> None:
        heights: dict[Pointer, int] = {}
        for pointer in reversed(self._parts):  # each comes after the part that holds it
            heights[pointer] = 1 + max((heights[inner] for inner in self._inner[pointer]), default=0)
        if sum(heights[pointer] for pointer in {(), *self._targets.values()}) > MAX_HEIGHT:
            raise refused_field("schema_too_large", field, "The definitions of a schema lead too far into one another.")

    def _list_united(self, pointer: Pointer) -> list[Pointer]:
        """The parts that the engine looks at to find the types that a part may have."""
        if pointer in self._targets:
            return [self._targets[pointer]]
        return [inner for inner in self._inner[pointer] if inner[len(pointer)] in _UNIONS]

    def _list_written(self, pointer: Pointer) -> list[Pointer]:
        """The parts that are written whenever a part is: a reference in `allOf` is written out, others once."""
        written = list(self._inner[pointer])
        merged = [inner for inner in written if inner[len(pointer)] == "allOf"]
        for inner in merged:
            chosen = [inner, *(part for part in self._inner[inner] if part[len(inner)] in _UNIONS)]
            written += [self._targets[part] for part in chosen if part in self._targets]
        kinds = self._parts[pointer].get("type")
        # For a text and for an object the same list is written.
        return written + merged if isinstance(kinds, list) and len(kinds) > 1 else written

    def _walk(
        self,
        pointer: Pointer,
        known: dict[Pointer, int | None],
        follow: Callable[[Pointer], list[Pointer]],
        sizes: dict[Pointer, int],
    ) -> int:
        if pointer not in known:
            known[pointer] = None
            known[pointer] = sizes[pointer] + sum(self._walk(one, known, follow, sizes) for one in follow(pointer))
        count = known[pointer]
        if count is None:
            raise refused_field("schema_refused", self._paths[pointer], "A schema leads back to itself without an end.")
        return count


def inner_parts(schema: dict[str, Any]) -> Iterator[tuple[Pointer, Any]]:
    """Each value that stands in the place of a schema, directly below one, with the names that lead to it."""
    for name in MAPS:
        found = schema.get(name)
        for key, part in found.items() if isinstance(found, dict) else ():
            yield (name, key), part
    for name in (*LISTS, *SINGLE):
        found = schema.get(name)
        if isinstance(found, list):
            for at, part in enumerate(found):
                yield (name, str(at)), part
        elif name in SINGLE and found is not None:
            yield (name,), found


def _count_own(schema: dict[str, Any], path: str) -> int:
    """The rules of a part, without those of the parts in it."""
    kinds = schema.get("type", [None])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if not kinds or len({str(kind) for kind in kinds}) != len(kinds) or not all(kind in _TYPES for kind in kinds):
        raise _refused(path, "type", "The type of a schema is one of JSON's, or a list of them.")
    rules = len(kinds)
    for name in _COUNTS:
        count = schema.get(name, 0)
        if type(count) is not int or not 0 <= count <= MAX_REPEATS:
            raise _refused(path, name, f"The field {name!r} of a schema is a whole number up to {MAX_REPEATS}.")
        rules += count
    for least, most in (_COUNTS[:2], _COUNTS[2:]):
        if schema.get(least, 0) > schema.get(most, MAX_REPEATS):
            # llama.cpp would look for the end of it for ever.
            raise _refused(path, least, f"The field {least!r} of a schema is not more than {most!r}.")
    for name in (name for name in _BOUNDS if name in schema):
        bound = schema[name]
        if type(bound) in (int, float) and (bound if name in _UPPER else -bound) >= SAFE_BOUND:
            del schema[name]
            continue
        if type(bound) not in (int, float) or not -MAX_BOUND <= bound <= MAX_BOUND:
            raise _refused(path, name, f"The field {name!r} of a schema is a number up to {MAX_BOUND}.")
        # A range is written digit by digit, and the rest of each digit again.
        rules += len(str(abs(int(bound)))) ** 2
    values = schema.get("enum")
    rules += len(values) if isinstance(values, list) else 0
    return rules + _write_pattern(schema, path) + _count_properties(schema)


def _write_pattern(schema: dict[str, Any], path: str) -> int:
    if "pattern" not in schema:
        return 0
    written = write_pattern(schema["pattern"])
    if written is None:
        message = (
            f"A pattern begins with ^ and ends with $. It has no groups, at most {MAX_PATTERN_CHARS} characters and "
            f"{MAX_PATTERN_REPEATS} repetitions."
        )
        raise refused_field("pattern_refused", f"{path}.pattern", message)
    schema["pattern"] = written[0]
    return written[1]


def _count_properties(schema: dict[str, Any]) -> int:
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict):
        return 0
    needed = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
    optional = len(properties.keys() - needed)
    # One rule for each property, and the converter lists what may follow for each that may be left out.
    return len(properties) + optional * optional // 2


def _refused(path: str, name: str, message: str) -> Refusal:
    return refused_field("schema_refused", f"{path}.{name}", message)
