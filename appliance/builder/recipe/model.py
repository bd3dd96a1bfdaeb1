"""The recipe: what a person wrote about what to build (DESIGN 4).

Owns the model of a recipe and how its mistakes are told. It must never open a source or ask a network.

Rules:
- only the fields of this model exist; an unknown field is an error, never ignored;
- nothing is converted: `3.10` without quotes is a number to YAML (3.1), and an error here;
- all mistakes are told at once, each with file, line, column, field, what was expected and what was found;
- what this version cannot build is refused here, where its line is known, not left out of the bundle.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import yaml
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from appliance.builder.recipe.choices import (
    BARE_HOST_PACKAGES,
    CPU_SHORT_LISTS,
    CPU_VARIANTS,
    CUDA_ARCHITECTURES,
    MODEL_FILE_SUFFIXES,
    OS_GLIBC,
    PART_SEPARATOR,
    QUANTISATIONS,
    SUITES,
    WEIGHTS_SUFFIX,
)
from appliance.builder.recipe.errors import duplicates, located, recipe_error, together
from appliance.builder.sources import beside, parse_source
from appliance.resources import recipes_path
from bundles.contents.paths import GRAMMAR, check_path
from signing.errors import NotTrustedError, UsageError

MAX_RECIPE_BYTES = 1 << 20

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


def _distinct_models(models: tuple[RecipeModel, ...]) -> tuple[RecipeModel, ...]:
    if len({model.name for model in models}) != len(models):
        raise ValueError("models with distinct names")
    return models


def _distinct_paths(files: tuple[RecipeFile, ...]) -> tuple[RecipeFile, ...]:
    if len({file.path.casefold() for file in files}) != len(files):
        raise ValueError("files with distinct paths")
    return files


def _one_arch(targets: tuple[RecipeTarget, ...]) -> tuple[RecipeTarget, ...]:
    if len({target.arch for target in targets}) != 1:
        raise ValueError("targets of one architecture: each bundle is for one")
    return targets


Name = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,60}[a-z0-9])?$", strict=True), AfterValidator(_check_name)
]
Version = Annotated[
    str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+([a-z.-][0-9a-z.-]*[0-9a-z])?$", strict=True)
]
PythonVersion = Annotated[str, StringConstraints(pattern=r"^3\.[0-9]{1,2}$", strict=True)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RecipeTarget(_Part):
    """A system that the bundle is to be installed on."""

    os: Annotated[str, AfterValidator(_check_os)] = Field(description="a system such as debian-12")
    arch: Literal["x86_64", "aarch64"] = Field(description="x86_64 or aarch64")
    python: tuple[PythonVersion, ...] = Field(
        description='a list of Python versions in quotes, for example ["3.11"]', min_length=1, strict=False
    )
    packages: Annotated[str | tuple[str, ...], BeforeValidator(_check_packages)] = Field(
        default=(), description="bare-host, or a list of Debian packages such as bubblewrap"
    )

    @field_validator("packages")
    @classmethod
    def _only_where_they_can_be_had(cls, value: object, info: ValidationInfo) -> object:
        if value and info.data.get("os", "") in OS_GLIBC.keys() - SUITES.keys():
            raise ValueError("no packages: they can be packed for " + ", ".join(SUITES))
        return value

    @property
    def wanted_packages(self) -> tuple[str, ...]:
        """The packages by name, sorted, each once."""
        return BARE_HOST_PACKAGES if isinstance(self.packages, str) else tuple(sorted(set(self.packages)))


class Acceptance(_Part):
    """Who accepted the terms of a licence, and when."""

    by: Annotated[str, StringConstraints(min_length=2, max_length=200, strict=True)] = Field(description="a name")
    date: Annotated[str, StringConstraints(pattern=r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]$", strict=True)] = Field(
        description='a date in quotes, for example "2026-01-31"'
    )


class Conversion(_Part):
    """That a model is converted to GGUF: its type then, and the files beside its weights."""

    to: Literal["F32", "F16", "BF16"] = Field(description="one of F32, F16, BF16")
    files: Annotated[tuple[str, ...], BeforeValidator(_check_beside)] = Field(
        description="a list of files beside the weights, such as config.json"
    )


class RecipeModel(_Part):
    """A model: what it is called, where it comes from, under which licence, and how long its context may be."""

    name: Name = Field(description="a name of a-z 0-9 . _ -, for example smollm2-135m")
    source: Annotated[str | tuple[str, ...], BeforeValidator(_check_sources)] = Field(
        description="a source such as pypi:… or hf:…, or a list of the parts to join"
    )
    licence: Annotated[str, AfterValidator(_check_licence)] = Field(description="an SPDX licence such as Apache-2.0")
    context: int = Field(description="a number of tokens, 1 to 16777216", ge=1, le=1 << 24)
    convert: Conversion | None = Field(default=None, description="a mapping with to and files")
    quantize: Annotated[str, AfterValidator(_check_quantisation)] | None = Field(
        default=None, description="a quantisation such as Q4_K_M"
    )
    allow_requantize: bool = Field(default=False, description="true or false")
    accepted: Acceptance | None = Field(default=None, description="a mapping with by and date")

    @field_validator("convert")
    @classmethod
    def _only_weights(cls, value: Conversion | None, info: ValidationInfo) -> Conversion | None:
        source = info.data.get("source", WEIGHTS_SUFFIX)
        if value and not (isinstance(source, str) and source.endswith(WEIGHTS_SUFFIX)):
            ending = WEIGHTS_SUFFIX
            raise ValueError(f"a source that is one file ending in {ending}, where the model is to be converted")
        return value

    @property
    def source_text(self) -> str:
        """The source in one line, as the lock spells it."""
        return self.source if isinstance(self.source, str) else PART_SEPARATOR.join(self.source)

    @property
    def parts(self) -> tuple[str, ...]:
        """The sources to join; empty for a model that is one file."""
        return () if isinstance(self.source, str) else self.source

    @property
    def beside(self) -> dict[str, str]:
        """The sources of the files beside its weights, by their path there; empty for a model that is a GGUF."""
        files = self.convert.files if self.convert else ()
        return {name: beside(self.source_text, name) for name in files}

    @property
    def needs_acceptance(self) -> bool:
        """Whether its licence has terms of its own, outside SPDX's list, that nobody is on record to have accepted."""
        return "LicenseRef-" in self.licence and self.accepted is None


class RecipeFile(_Part):
    """A further file of the bundle."""

    source: Annotated[str, AfterValidator(_check_source)] = Field(description="a source such as pypi:… or file:…")
    path: Annotated[str, AfterValidator(_check_file_path)] = Field(description="a path below files/ or licences/")
    licence: Annotated[str, AfterValidator(_check_licence)] = Field(description="an SPDX licence such as Apache-2.0")

    @property
    def kind(self) -> str:
        """What it is in the bundle (FORMAT 3.2)."""
        return "licence" if self.path.startswith("licences/") else "config"


class RecipeRuntime(_Part):
    """What runs the models."""

    llama_cpp_python: Version = Field(description="a version of llama-cpp-python, for example 0.3.36")
    cpu: Annotated[str | tuple[str, ...], BeforeValidator(_check_variants)] = Field(
        default="all", description="all, native, or a list of processor generations"
    )
    cuda: Annotated[tuple[int, ...], BeforeValidator(_check_cuda)] = Field(
        default=(), description="false, or a list of generations of graphics processors such as [80, 90]"
    )


class RecipeServe(_Part):
    """Defaults for serving."""

    slots: int = Field(default=4, description="a number of parallel requests, 1 to 256", ge=1, le=256)


class Recipe(_Part):
    """A whole recipe."""

    name: Name = Field(description="a name of a-z 0-9 . _ -, for example smollm2")
    version: Version = Field(description="a version of three numbers, for example 1.0.0")
    targets: Annotated[tuple[RecipeTarget, ...], AfterValidator(_one_arch)] = Field(
        description="a list of at least one target", min_length=1, strict=False
    )
    models: Annotated[tuple[RecipeModel, ...], AfterValidator(_distinct_models)] = Field(
        description="a list of at least one model", min_length=1, strict=False
    )
    runtime: RecipeRuntime = Field(description="a mapping with llama_cpp_python, cpu and cuda")
    files: Annotated[tuple[RecipeFile, ...], AfterValidator(_distinct_paths)] = Field(
        default=(), description="a list of further files", strict=False
    )
    serve: RecipeServe = Field(default=RecipeServe(), description="a mapping with slots")

    @property
    def arch(self) -> str:
        """The one architecture of all targets."""
        return self.targets[0].arch

    @property
    def pythons(self) -> tuple[str, ...]:
        """The Python versions of all targets, oldest first, each once."""
        found = {python for target in self.targets for python in target.python}
        return tuple(sorted(found, key=lambda text: int(text.split(".")[1])))

    def glibc_for(self, python: str) -> tuple[int, int]:
        """The oldest C library among the targets that use a Python version."""
        return min(OS_GLIBC[target.os] for target in self.targets if python in target.python)


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the YAML file; its text is a person's, and checked to the last field.

    Raises:
        UsageError: with all mistakes, each as `file:line:column field`.
    """
    text = _read(path)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        errors = duplicates(node, path)
        value = loader.construct_document(node) if node and not errors else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise recipe_error(where, "YAML", (error.problem or "something else").removeprefix("found ")) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise recipe_error(str(path), "YAML", str(error)[:200]) from None
    except (LookupError, AttributeError):  # of `!!bool`, `!!int` or `!!timestamp` before something else
        raise recipe_error(str(path), "YAML", "a value that is not what its tag says") from None
    if errors:
        raise together(errors)
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        raise together(located(error.errors(include_url=False), node, Recipe, path)) from None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_RECIPE_BYTES + 1)
    except OSError as error:
        raise UsageError(
            "recipe.missing", str(path), expected="a recipe (YAML)", found=_reason(error), hint=_choices(path)
        ) from None
    if len(data) > MAX_RECIPE_BYTES:
        raise recipe_error(str(path), f"at most {MAX_RECIPE_BYTES} bytes", "more")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise recipe_error(str(path), "UTF-8 text", f"the byte 0x{data[error.start]:02x} at {error.start}") from None


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _choices(path: Path) -> str:
    beside = sorted(path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    there = beside or sorted(recipes_path().glob("*.yaml"))
    return "recipes that are there: " + ", ".join(str(one) for one in there) if there else "write a recipe first"
