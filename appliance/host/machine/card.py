"""The card: what a host is, as one value and one JSON file.

Owns the types of `card.json`, its schema, and its parser. It reads no machine: `appliance.host.machine.probe` does.

Rules:
- one dataclass is the format: the schema is generated from it, and a file is checked against it, field by field;
- what could not be seen is null or empty, and `unseen` names it in words; nothing is guessed;
- sizes are bytes, shares of a processor are thousandths, and there are no fractions: a card is strict JSON.
"""

from __future__ import annotations

import types
import typing
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any

from signing.errors import NotTrustedError, UsageError
from signing.strictjson import load

FORMAT = 1
MAX_CARD_BYTES = 1 << 20
TRIED, BY_FLAGS = "tried", "by flags"
"""How a verdict on a CPU variant was reached: it ran a computation here, or the processor's flags allow it."""


@dataclass(frozen=True, slots=True)
class System:
    """The operating system and the libraries that programs link to; a field is empty where that is absent."""

    os: str
    name: str
    arch: str
    kernel: str
    systemd: str
    glibc: str
    glibcxx: str
    cxxabi: str


@dataclass(frozen=True, slots=True)
class Variant:
    """A CPU variant of the runtime: its name, whether it can serve here, how that is known, and the reason if not."""

    name: str
    is_fit: bool
    how: str
    reason: str


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor.

    Args:
        model: its name.
        flags: as the kernel names them, sorted.
        cores: cores of the machine that are online.
        allowed_cores: cores that this process may run on.
        quota_millicores: processor time that control groups allow, in thousandths of a core; null without a limit.
        engine_threads: threads that an engine would get.
        variants: verdicts on the runtime's CPU variants, newest generation first.
    """

    model: str
    flags: tuple[str, ...]
    cores: int
    allowed_cores: int
    quota_millicores: int | None
    engine_threads: int
    variants: tuple[Variant, ...]


@dataclass(frozen=True, slots=True)
class Memory:
    """Main memory in bytes.

    Args:
        ram_bytes: all of the machine's memory.
        available_bytes: free now, or freed as soon as it is needed.
        swap_bytes: the machine's swap space.
        limit_bytes: what control groups still allow this process; null without a limit.
    """

    ram_bytes: int
    available_bytes: int
    swap_bytes: int
    limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class Gpu:
    """A graphics processor: its PCI address and ids, name, memory in bytes, and driver; empty or null where unseen."""

    address: str
    vendor: str
    device: str
    name: str
    memory_bytes: int | None
    driver: str


@dataclass(frozen=True, slots=True)
class Disk:
    """A mounted file system that could hold models.

    Args:
        mount: the folder where it is mounted.
        filesystem: its type, such as `ext4`.
        size_bytes, free_bytes: its size, and what this user may still write.
        is_read_only: whether it is mounted read-only.
        has_fsverity: whether fs-verity can seal files on it; null where that could not be seen.
    """

    mount: str
    filesystem: str
    size_bytes: int
    free_bytes: int
    is_read_only: bool
    has_fsverity: bool | None


@dataclass(frozen=True, slots=True)
class Kernel:
    """What the kernel offers to this user; null where that could not be seen.

    Args:
        isolation: `netns` where a child process can be kept from every network, else `none`.
        has_memfd_seals: whether memory can be sealed against every later change.
        cgroup_version: 1 or 2; null without control groups.
        has_fsverity, has_device_mapper: whether the feature is built in or loaded.
    """

    isolation: str
    has_memfd_seals: bool
    cgroup_version: int | None
    has_fsverity: bool | None
    has_device_mapper: bool | None


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock's time in UTC, and whether a time service keeps it right; null where that could not be seen."""

    time: str
    is_synchronised: bool | None


@dataclass(frozen=True, slots=True)
class Card:
    """A host's hardware and system, as one user saw them at one time; `unseen` names in words what was not seen."""

    format: int
    system: System
    cpu: Cpu
    memory: Memory
    gpus: tuple[Gpu, ...]
    disks: tuple[Disk, ...]
    kernel: Kernel
    clock: Clock
    unseen: tuple[str, ...]


def card_value(card: Card) -> dict[str, Any]:
    """Convert a card to a JSON object."""
    return asdict(card)


def card_schema() -> dict[str, Any]:
    """Generate the JSON Schema of a card (draft 2020-12)."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "card"}
    return {**head, **_schema(Card)}


def parse_card(data: bytes, subject: str) -> Card:
    """Parse the bytes of a `card.json`.

    Args:
        data: untrusted; a card is a description and decides nothing about trust.
        subject: the file's name, for errors.

    Raises:
        UsageError: the bytes are no card, or one of another format.
    """
    try:
        value = load(data, subject, MAX_CARD_BYTES)
    except NotTrustedError as error:
        raise _refused(subject, "a card in JSON", error.found) from None
    if isinstance(value, dict) and (type(value.get("format")) is not int or value["format"] != FORMAT):
        raise _refused(subject, f"a card of format {FORMAT}", f"format {value.get('format')!r:.40}")
    card = _read(Card, value, "card", subject)
    assert isinstance(card, Card)
    return card


def _schema(kind: Any) -> dict[str, Any]:
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = [spec.name for spec in fields(kind)]
        properties = {name: _schema(hints[name]) for name in names}
        return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}
    if typing.get_origin(kind) is tuple:
        return {"type": "array", "items": _schema(typing.get_args(kind)[0])}
    if isinstance(kind, types.UnionType):
        return {"anyOf": [_schema(one) for one in typing.get_args(kind)]}
    plain = {str: "string", int: "integer", bool: "boolean", type(None): "null"}
    return {"type": plain[kind], **({"minimum": 0} if kind is int else {})}


def _read(kind: Any, value: Any, where: str, subject: str) -> Any:
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, dict):
        hints = typing.get_type_hints(kind)
        names = {spec.name for spec in fields(kind)}
        if names != value.keys():
            odd = sorted(names ^ value.keys())
            raise _refused(subject, f"{where} with its fields and no others", f"missing or unknown: {', '.join(odd)}")
        return kind(**{name: _read(hints[name], value[name], f"{where}.{name}", subject) for name in names})
    if typing.get_origin(kind) is tuple and isinstance(value, list):
        inner = typing.get_args(kind)[0]
        return tuple(_read(inner, one, f"{where}[{at}]", subject) for at, one in enumerate(value))
    if isinstance(kind, types.UnionType):
        kind = type(None) if value is None else typing.get_args(kind)[0]
    is_negative = isinstance(value, int) and value < 0
    if isinstance(kind, type) and type(value) is kind and not is_negative:
        return value
    raise _refused(subject, f"{where} as the schema has it", repr(value)[:60])


def _refused(subject: str, expected: str, found: str) -> UsageError:
    return UsageError(
        "card.refused", subject, expected=expected, found=found, hint="write it again: `appliance host probe --json`"
    )
