"""The JSON Schema of a recipe, for editors: `python -m appliance.builder.recipe.schema` writes it beside the recipes.

Owns how the schema is written. It cannot express all that the model checks.
"""

from __future__ import annotations

import json
from pathlib import Path

from appliance.builder.recipe.recipe import Recipe
from appliance.resources import recipes_path

FILE = "recipe.schema.json"


def format_schema() -> str:
    """The text of the schema: sorted keys, two spaces, a newline at the end."""
    return json.dumps(Recipe.model_json_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main(folder: Path) -> None:
    """Write the schema into a folder."""
    (folder / FILE).write_text(format_schema(), "utf-8")


if __name__ == "__main__":
    main(recipes_path())
