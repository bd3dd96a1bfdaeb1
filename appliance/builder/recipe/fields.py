"""The values that a field of a recipe may have, each with its check.

Owns the types of fields. What fields exist, and which of them belong together, is in `model`.

Rules:
- nothing is converted: a value of another type is an error;
- a check that fails names what it expected, as text for the person who wrote the recipe.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from pydantic import AfterValidator, BeforeValidator, StringConstraints, WithJsonSchema

from appliance.builder.recipe.choices import (
    CPU_SHORT_LISTS,
    CPU_VARIANTS,
    CUDA_ARCHITECTURES,
    MODEL_FILE_SUFFIXES,
    OS_GLIBC,
    QUANTISATIONS,
)
from appliance.builder.sources import parse_source
from bundles.contents.paths import GRAMMAR, check_path
from signing.errors import NotTrustedError

MAX_GOLDEN_SETS = 16
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,100}")


def _check_source(text: str) -> str:
    parse_source(text)
    return text


def _check_sources(value: object) -> object:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts) or not texts:
        raise ValueError("a source such as pypi:… or hf:…, or a list of the parts to join")
    for text in texts:
        _check_source(text)
    return value if isinstance(value, str) else tuple(texts)


def _check_golden(value: object) -> object:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not 1 <= len(texts) <= MAX_GOLDEN_SETS or len(set(texts)) != len(texts):
        raise ValueError(f"a source such as file:golden.jsonl, or a list of 1 to {MAX_GOLDEN_SETS} distinct ones")
    for text in texts:
        if not isinstance(text, str):
            raise ValueError("a source such as file:golden.jsonl")
        _check_source(text)
    return tuple(texts)


def _check_file_path(text: str) -> str:
    try:
        parts = check_path(text).split("/")
    except NotTrustedError:
        parts = []
    if len(parts) < 2 or parts[0] not in ("files", "licences"):
        raise ValueError(f"a path below files/ or licences/, of {GRAMMAR}")
    return text


def _check_licence(text: str) -> str:
    try:
        return canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        raise ValueError("an SPDX licence expression, for example Apache-2.0 or LicenseRef-gemma") from None


def _check_name(text: str) -> str:
    try:
        return check_path(text)
    except NotTrustedError:
        raise ValueError("a name that no file system keeps for itself") from None


def _check_os(text: str) -> str:
    if text not in OS_GLIBC:
        raise ValueError("one of " + ", ".join(OS_GLIBC))
    return text


def _check_variants(value: object) -> object:
    if value in CPU_SHORT_LISTS:
        return value
    names = value if isinstance(value, list) else []
    distinct = {name for name in names if isinstance(name, str)} & CPU_VARIANTS.keys()
    if names and len(distinct) == len(names):
        return tuple(names)
    raise ValueError(f"{', '.join(CPU_SHORT_LISTS)}, or a list of: {', '.join(CPU_VARIANTS)}")


def _check_packages(value: object) -> object:
    if value == "bare-host":
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) and _PACKAGE.fullmatch(name) for name in value):
        return tuple(value)
    raise ValueError("bare-host, or a list of package names such as bubblewrap")


def _check_cuda(value: object) -> object:
    if value is False:
        return ()
    numbers = value if isinstance(value, list) else []
    distinct = {number for number in numbers if type(number) is int} & CUDA_ARCHITECTURES.keys()
    if numbers and len(distinct) == len(numbers):
        return tuple(sorted(distinct))
    raise ValueError(f"false, or a list of: {', '.join(map(str, CUDA_ARCHITECTURES))}")


def _check_quantisation(text: str) -> str:
    if text not in QUANTISATIONS:
        raise ValueError("one of " + ", ".join(QUANTISATIONS))
    return text


def _check_beside(value: object) -> object:
    names = value if isinstance(value, (list, tuple)) else []
    try:
        plain = [check_path(name) for name in names if isinstance(name, str) and name.endswith(MODEL_FILE_SUFFIXES)]
    except NotTrustedError:
        plain = []
    if not plain or len({name.casefold() for name in plain}) != len(names):
        endings = " ".join(MODEL_FILE_SUFFIXES)
        raise ValueError(f"distinct files beside the weights, relative to them, each ending in {endings}")
    return tuple(plain)


def _one_of(values: Iterable[str]) -> dict[str, object]:
    return {"type": "string", "enum": list(values)}


def _list_of(entry: dict[str, object]) -> dict[str, object]:
    return {"type": "array", "items": entry, "minItems": 1}


_TEXT: dict[str, object] = {"type": "string"}
Name = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,60}[a-z0-9])?$", strict=True), AfterValidator(_check_name)
]
Version = Annotated[
    str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+([a-z.-][0-9a-z.-]*[0-9a-z])?$", max_length=62, strict=True)
]
PythonVersion = Annotated[str, StringConstraints(pattern=r"^3\.[0-9]{1,2}$", strict=True)]
Person = Annotated[str, StringConstraints(min_length=2, max_length=200, strict=True)]
Day = Annotated[str, StringConstraints(pattern=r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]$", strict=True)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$", strict=True)]
SystemName = Annotated[str, AfterValidator(_check_os), WithJsonSchema(_one_of(OS_GLIBC))]
PackageNames = Annotated[
    str | tuple[str, ...],
    BeforeValidator(_check_packages),
    WithJsonSchema({"anyOf": [_one_of(["bare-host"]), {"type": "array", "items": _TEXT}]}),
]
SourceText = Annotated[str, AfterValidator(_check_source)]
SourceTexts = Annotated[
    str | tuple[str, ...], BeforeValidator(_check_sources), WithJsonSchema({"anyOf": [_TEXT, _list_of(_TEXT)]})
]
GoldenSources = Annotated[
    tuple[str, ...], BeforeValidator(_check_golden), WithJsonSchema({"anyOf": [_TEXT, _list_of(_TEXT)]})
]
Licence = Annotated[str, AfterValidator(_check_licence)]
BundlePath = Annotated[str, AfterValidator(_check_file_path)]
FilesBeside = Annotated[tuple[str, ...], BeforeValidator(_check_beside), WithJsonSchema(_list_of(_TEXT))]
QuantisationName = Annotated[str, AfterValidator(_check_quantisation), WithJsonSchema(_one_of(QUANTISATIONS))]
CpuVariants = Annotated[
    str | tuple[str, ...],
    BeforeValidator(_check_variants),
    WithJsonSchema({"anyOf": [_one_of(CPU_SHORT_LISTS), _list_of(_one_of(CPU_VARIANTS))]}),
]
CudaArchitectures = Annotated[
    tuple[int, ...],
    BeforeValidator(_check_cuda),
    WithJsonSchema({"anyOf": [{"const": False}, _list_of({"type": "integer", "enum": list(CUDA_ARCHITECTURES)})]}),
]
