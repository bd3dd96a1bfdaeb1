"""The JSON Schema of a recipe, for editors: `python -m appliance.builder.recipe.schema` writes it beside the recipes.

Owns how the schema is spelled. It says less than the model, which also checks what no schema can.
"""

from __future__ import annotations

import json
from pathlib import Path

from appliance.builder.recipe.model import Recipe
from appliance.resources import recipes_path

FILE = "recipe.schema.json"


def spell() -> str:
    """The one spelling of the schema."""
    return json.dumps(Recipe.model_json_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main(folder: Path) -> None:
    """Write the schema into a folder."""
    (folder / FILE).write_text(spell(), "utf-8")


if __name__ == "__main__":
    main(recipes_path())
