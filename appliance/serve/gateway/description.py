"""The description of all routes that take a request. Loads pydantic: `routes` asks for it in a thread."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

from appliance.serve.dialects.forms import REQUEST_MODELS
from appliance.serve.observation.openapi import describe
from appliance.serve.requests.json_text import to_json

_PACKAGE = "airgap-appliance"


@cache
def description() -> bytes:
    """The OpenAPI document as JSON."""
    return to_json(describe(REQUEST_MODELS, version(_PACKAGE)))
