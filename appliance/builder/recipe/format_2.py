"""The parts of a recipe that a bundle states in format 2: accepted templates, what a site may add, and what is to come.

Owns the fields of these parts. A part that no build of this version packs is refused by name: a recipe must not name
what its bundle would lack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationInfo

from appliance.builder.recipe.fields import Day, Licence, Name, Person, Sha256, SourceText
from appliance.builder.recipe.part import RecipePart

T = TypeVar("T")


class AcceptedTemplate(RecipePart):
    """The person who read a chat template that the build refuses by judgement, and accepted it."""

    by: Person = Field(title="the person who read the template and accepted it", description="a name")
    date: Day = Field(title="the day on which it was accepted", description='a date in quotes, such as "2026-01-31"')
    sha256: Sha256 = Field(
        title="the digest of the accepted text: another template needs another acceptance",
        description="64 lowercase hexadecimal digits, the sha256 of the template's text",
    )


class RecipeTemplate(RecipePart):
    """What people decided about the chat template of a model."""

    accepted: AcceptedTemplate = Field(
        title="who accepted a template that the build refuses by judgement; the bundle shows it",
        description="a mapping with by, date and sha256",
    )


class RecipeSite(RecipePart):
    """What a site may add under a trust root of its own."""

    kinds: tuple[Literal["adapter", "advisory", "doc", "golden-set"], ...] = Field(
        title="the kinds of file that a site may add; never a program or a model",
        description="a list of adapter, advisory, doc, golden-set",
        min_length=1,
        strict=False,
    )


@dataclass(frozen=True, slots=True)
class GoldenFile:
    """A golden set of the bundle: its source as the recipe names it, and its path in the bundle."""

    source: str
    path: str

    @property
    def licence(self) -> str:
        """What its entry in the lock states: who wrote a recipe's prompts declares no licence for them."""
        return "NOASSERTION"

    @property
    def kind(self) -> str:
        """The kind of file in the bundle (FORMAT 3.2)."""
        return "golden-set"


class RecipeAdapter(RecipePart):
    """A LoRA adapter that somebody else made, for one model of the recipe."""

    name: Name = Field(title="how users name it, after the model and an @", description="a name of a-z 0-9 . _ -")
    base: Name = Field(title="the model of this recipe that it was trained on", description="the name of a model")
    source: SourceText = Field(title="where the adapter comes from", description="a source such as hf:… or file:…")
    licence: Licence = Field(title="the licence of the adapter", description="an SPDX licence such as Apache-2.0")


class RecipeServer(RecipePart):
    """A tool server: a program whose tools agents may call."""

    name: Name = Field(title="the name of the server, before its tools' names", description="a name of a-z 0-9 . _ -")
    source: SourceText = Field(title="where the server comes from", description="a source such as pypi:… or file:…")
    licence: Licence = Field(title="the licence of the server", description="an SPDX licence such as Apache-2.0")


def _refuse_until_built(value: tuple[T, ...], info: ValidationInfo) -> tuple[T, ...]:
    if value:
        raise ValueError(f"no {info.field_name}: a later version of this program packs them, this one does not")
    return value


_LATER = AfterValidator(_refuse_until_built)
Adapters = Annotated[tuple[RecipeAdapter, ...], _LATER]
Servers = Annotated[tuple[RecipeServer, ...], _LATER]
Advisories = Annotated[tuple[SourceText, ...], _LATER]
