"""What all parts of a recipe have in common: no unknown field, no conversion, no change after reading."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class RecipePart(BaseModel):
    """A mapping of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
