"""The description of all routes that take a request. Loads pydantic: `routes` asks for it in a thread."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

from pydantic import BaseModel

from appliance.serve.observation.openapi import describe
from appliance.serve.requests.json_text import to_json
from appliance.serve.requests.work import MODELS

_PACKAGE = "airgap-appliance"


def described_models() -> dict[str, type[BaseModel]]:
    """By path, the model that checks the body of each route."""
    return dict(MODELS)


@cache
def description() -> bytes:
    """The OpenAPI document as JSON."""
    return to_json(describe(described_models(), version(_PACKAGE)))
