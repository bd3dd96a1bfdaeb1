"""The fields of a YAML file that a person writes: what each may hold, read with its line and column.

Owns the reading of a file against a table of fields, and the JSON Schema of such a table.
`appliance.host.site.config` has the table of `site.yaml`.

Rules:
- a field is data: the parser, the schema and the messages follow from its row;
- every fault is found in one reading, each with its line and column;
- a name that stands twice in one mapping is a fault: YAML's own reader would silently take the last one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from typing import TYPE_CHECKING, Any

from appliance.host.site.field_kinds import FieldKind, Word

if TYPE_CHECKING:  # yaml is loaded with the first file that is read
    import yaml


@dataclass(frozen=True, slots=True)
class NamedGroups:
    """A mapping whose keys a person chooses, each with the same few fields: `models: {NAME: {pin: true}}`.

    Its value is a mapping by name. It holds only the fields that the file has: the reader knows the defaults.

    Args:
        names: the allowed keys.
        fields: of each entry, without groups.
        max_entries: the most entries.
    """

    names: Word
    fields: tuple[SiteField, ...]
    max_entries: int

    @property
    def expected(self) -> str:
        """The allowed values, for people."""
        return f"names, each with {', '.join(field.name for field in self.fields)}"

    def accepts(self, value: object) -> bool:
        """Whether a value is one of these; the reading itself goes entry by entry."""
        return isinstance(value, dict) and len(value) <= self.max_entries

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the values."""
        entry = _mapping()
        for field in self.fields:
            entry["properties"][field.name] = _describe_field(field)
        names = {"propertyNames": self.names.schema(), "maxProperties": self.max_entries}
        return {"type": ["object", "null"], "additionalProperties": {**entry, "type": ["object", "null"]}, **names}


@dataclass(frozen=True, slots=True)
class SiteField:
    """A field of the file.

    Args:
        name: as it stands in the file; `group.name` for a field inside the mapping `group`.
        kind: the allowed values.
        default: where the file has no such field; None where something else decides then.
        what: what it decides, in one sentence, for the schema and for people.
    """

    name: str
    kind: FieldKind
    default: int | str | tuple[str, ...] | dict[str, Any] | None
    what: str


@dataclass(frozen=True, slots=True)
class SiteFault:
    """Something wrong in the file.

    Args:
        name: the field; empty where the file as a whole is wrong.
        line, column: where it stands, from 1; 0 where no place can be named.
        expected, found: what the field may hold, and what it holds.
    """

    name: str
    line: int
    column: int
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class SiteValues:
    """What a file holds: the value of every field and the line of those that stand in it, by name; and every fault.

    Args:
        columns: of the same fields as `lines`.
    """

    values: dict[str, Any]
    lines: dict[str, int]
    faults: tuple[SiteFault, ...]
    columns: dict[str, int] = dataclass_field(default_factory=dict)


def read_values(data: bytes, fields: Sequence[SiteField], reserved: Sequence[str], max_bytes: int) -> SiteValues:
    """Read a file against a table of fields.

    Args:
        data: the whole file, untrusted; no bytes are a file without fields.
        fields: the table.
        reserved: names of fields that have no effect yet.
        max_bytes: the largest file.

    Returns:
        Defaults stand where the file has no value, or a wrong one.
    """
    import yaml

    values: dict[str, Any] = {field.name: field.default for field in fields}
    lines: dict[str, int] = {}
    columns: dict[str, int] = {}
    try:
        if len(data) > max_bytes:
            raise ValueError(f"more than {max_bytes} bytes")
        loader = yaml.SafeLoader(data.decode("utf-8", "strict"))
        try:
            node = loader.get_single_node()
            faults = (
                tuple(_Reading(fields, reserved, SiteValues(values, lines, (), columns), loader).read(node))
                if node is not None
                else ()
            )
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        found = " ".join(f"{error.context or ''} {error.problem or ''}".split())[:200]
        faults = (SiteFault("", mark.line + 1 if mark else 0, mark.column + 1 if mark else 0, "YAML", found),)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        faults = (SiteFault("", 0, 0, "YAML", " ".join(str(error).split())[:200]),)
    return SiteValues(values, lines, tuple(sorted(faults, key=lambda fault: (fault.line, fault.column))), columns)


class _Reading:
    """One reading of a file: it fills the values, and yields the faults."""

    def __init__(
        self, fields: Sequence[SiteField], reserved: Sequence[str], found: SiteValues, loader: yaml.SafeLoader
    ) -> None:
        self._fields = {field.name: field for field in fields}
        self._groups = {name.partition(".")[0] for name in self._fields if "." in name}
        self._reserved, self._found, self._loader = reserved, found, loader

    def read(self, node: yaml.Node, group: str = "") -> Iterator[SiteFault]:
        """Read a mapping: the whole file, or a group of it."""
        import yaml

        if node.tag == "tag:yaml.org,2002:null":
            return
        if not isinstance(node, yaml.MappingNode) or node.tag != "tag:yaml.org,2002:map":
            yield _fault(group.rstrip("."), node, "fields and values", _describe(node))
            return
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                yield _fault(group.rstrip("."), key, "fields and values", f"a field named {_describe(key)}")
                continue
            name = f"{group}{key.value}"
            if name in seen:
                yield _fault(name, key, "a field once", "the same field a second time")
                continue
            seen.add(name)
            yield from self._field(name, key, value, is_top=not group)

    def _field(self, name: str, key: yaml.Node, node: yaml.Node, *, is_top: bool) -> Iterator[SiteFault]:
        if is_top and name in self._groups:
            yield from self.read(node, f"{name}.")
        elif field := self._fields.get(name) if not (is_top and "." in name) else None:
            if isinstance(field.kind, NamedGroups):
                yield from self._named(field.kind, name, key, node)
                return
            value = self._construct(node)
            if field.kind.accepts(value):
                self._found.values[name] = tuple(value) if isinstance(value, list) else value
                self._found.lines[name] = key.start_mark.line + 1
                self._found.columns[name] = key.start_mark.column + 1
            else:
                yield _fault(name, node, field.kind.expected, _found_value(node, value))
        elif is_top and name in self._reserved:
            expected = "no such field yet: a later version of this program reads it"
            yield _fault(name, key, expected, "a field without effect here")
        else:
            yield _fault(name, key, f"one of {', '.join(self._names(name, is_top=is_top))}", "an unknown field")

    def _named(self, kind: NamedGroups, name: str, key: yaml.Node, node: yaml.Node) -> Iterator[SiteFault]:
        """Read a mapping with the keys of a person, entry by entry; each entry is read as a file of its own fields."""
        import yaml

        value = self._construct(node)
        entries: dict[str, dict[str, Any]] = {}
        self._found.values[name], self._found.lines[name] = entries, key.start_mark.line + 1
        if value is None and node.tag == "tag:yaml.org,2002:null":
            return
        if not isinstance(node, yaml.MappingNode) or not kind.accepts(value):
            most = f"at most {kind.max_entries} {kind.expected}"
            yield _fault(name, node, most, _describe(node))
            return
        seen: set[str] = set()
        for entry_key, entry in node.value:
            text = entry_key.value if isinstance(entry_key, yaml.ScalarNode) else ""
            if entry_key.tag != "tag:yaml.org,2002:str" or not kind.names.accepts(text):
                yield _fault(name, entry_key, kind.names.expected, repr(text)[:120] if text else _describe(entry_key))
            elif text in seen:
                yield _fault(f"{name}.{text}", entry_key, "a name once", "the same name a second time")
            else:
                seen.add(text)
                inner = SiteValues({}, {}, ())
                for fault in _Reading(kind.fields, (), inner, self._loader).read(entry):
                    yield replace(fault, name=f"{name}.{text}" + (f".{fault.name}" if fault.name else ""))
                entries[text] = inner.values

    def _construct(self, node: yaml.Node) -> Any:
        import yaml

        try:
            return self._loader.construct_document(node)
        except (yaml.YAMLError, ValueError, RecursionError):
            return None  # a date that no calendar has, or a tag of another language: no field holds such a thing

    def _names(self, name: str, *, is_top: bool) -> list[str]:
        if is_top:
            return list(dict.fromkeys(known.partition(".")[0] for known in self._fields))
        group = name.partition(".")[0]
        return [known.partition(".")[2] for known in self._fields if known.startswith(f"{group}.")]


def fields_schema(title: str, fields: Sequence[SiteField]) -> dict[str, Any]:
    """Generate the JSON Schema of a file (draft 2020-12)."""
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **_mapping()}
    for field in fields:
        group, _, name = field.name.rpartition(".")
        place = schema["properties"].setdefault(group, _mapping()) if group else schema
        place["properties"][name] = _describe_field(field)
    return schema


def _describe_field(field: SiteField) -> dict[str, Any]:
    entry = {**field.kind.schema(), "description": field.what}
    return entry if field.default is None else {**entry, "default": field.default}


def _mapping() -> dict[str, Any]:
    return {"type": "object", "properties": {}, "additionalProperties": False}


def _describe(node: yaml.Node) -> str:
    kinds = {
        "seq": "a list",
        "map": "a mapping",
        "str": "a text",
        "int": "a number",
        "bool": "true or false",
        "null": "nothing",
    }
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    return kinds.get(kind, kind)[:80]


def _found_value(node: yaml.Node, value: object) -> str:
    return _describe(node) if value is None else repr(value)[:120]


def _fault(name: str, node: yaml.Node, expected: str, found: str) -> SiteFault:
    mark = node.start_mark
    return SiteFault(name, mark.line + 1, mark.column + 1, expected, found)
