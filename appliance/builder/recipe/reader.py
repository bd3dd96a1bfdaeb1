"""Reading a recipe from its YAML file.

Owns the way from a file to a checked recipe. It must never open a source or use a network.

Rules:
- all mistakes are reported at once, each with file, line, column, field, what was expected and what was found;
- a key that stands twice is a mistake, and so is a merge.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from appliance.builder.recipe.errors import combine, find_duplicates, locate, recipe_error
from appliance.builder.recipe.recipe import Recipe
from appliance.resources import recipes_path
from signing.errors import UsageError

MAX_RECIPE_BYTES = 1 << 20


def load_recipe(path: Path) -> Recipe:
    """Read a recipe and check every field.

    Args:
        path: the YAML file; a person wrote it, and every field is checked.

    Raises:
        UsageError: no such file, or mistakes in it: one error for each, at `file:line:column field`.
    """
    text = _read(path)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        errors = find_duplicates(node, path)
        value = loader.construct_document(node) if node and not errors else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise recipe_error(where, "YAML", (error.problem or "something else").removeprefix("found ")) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise recipe_error(str(path), "YAML", str(error)[:200]) from None
    except (LookupError, AttributeError):  # of `!!bool`, `!!int` or `!!timestamp` before something else
        raise recipe_error(str(path), "YAML", "a value that does not fit its tag") from None
    if errors:
        raise combine(errors)
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        raise combine(locate(error.errors(include_url=False), node, Recipe, path)) from None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_RECIPE_BYTES + 1)
    except OSError as error:
        raise UsageError(
            "recipe.missing", str(path), expected="a recipe (YAML)", found=_reason(error), hint=_other_recipes(path)
        ) from None
    if len(data) > MAX_RECIPE_BYTES:
        raise recipe_error(str(path), f"at most {MAX_RECIPE_BYTES} bytes", "more")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise recipe_error(str(path), "UTF-8 text", f"the byte 0x{data[error.start]:02x} at {error.start}") from None


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _other_recipes(path: Path) -> str:
    beside = sorted(path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    found = beside or sorted(recipes_path().glob("*.yaml"))
    return "recipes that are there: " + ", ".join(str(one) for one in found) if found else "write a recipe first"
