"""docs/recipes.md has every field of a recipe, each with what it is for and what may stand there."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from appliance.builder.recipe.recipe import Recipe
from appliance.resources import recipes_path
from tests.json_schema import require_valid
from tests.pages.generated.recipes import page
from tests.pages.markdown import anchors, links

PAGE = page()
SCHEMA = Recipe.model_json_schema()
FIELDS = [
    (mapping["title"], name, field)
    for mapping in (SCHEMA, *SCHEMA["$defs"].values())
    for name, field in mapping["properties"].items()
]


@pytest.mark.parametrize(("mapping", "name", "field"), FIELDS, ids=[f"{mapping}.{name}" for mapping, name, _ in FIELDS])
def test_every_field_has_a_meaning_and_an_allowed_value(mapping: str, name: str, field: dict[str, str]) -> None:
    assert field["description"]
    assert field["title"] != name.replace("_", " ").title(), "a title that pydantic made up states no meaning"
    assert f"\n| `{name}` | " in PAGE
    assert f"| {field['title']} |\n" in PAGE


def test_every_link_leads_to_a_heading_of_the_page() -> None:
    assert {link[1:] for link in links(PAGE) if link.startswith("#")} <= anchors(PAGE)


@pytest.mark.parametrize("path", sorted(recipes_path().glob("*.yaml")), ids=lambda path: str(path.name))
def test_every_recipe_that_comes_with_the_program_follows_the_schema(path: Path) -> None:
    require_valid(yaml.safe_load(path.read_text("utf-8")), SCHEMA)
