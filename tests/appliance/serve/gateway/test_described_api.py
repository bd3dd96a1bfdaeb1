"""The description of the API is served, has every route, and every answer is as it states: schemathesis tries it.

`EXAMPLES` is how many requests each operation gets; `make soak` sends more.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from appliance.serve.dialects.forms import REQUEST_MODELS
from appliance.serve.gateway.description import description
from appliance.serve.observation.openapi import OPERATIONS
from appliance.serve.requests.paths import ROUTES
from tests.appliance.serve.gateway.site import Site, opened

EXAMPLES = int(os.environ.get("EXAMPLES", "25"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
MODELS = {"/v1/embeddings": "embeds", "/v1/rerank": "ranks"}
SAID = [{"role": "user", "content": "x"}]
SMALLEST: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": SAID},
    "/v1/responses": {"input": "x"},
    "/v1/responses/input_tokens": {"input": "x"},
    "/v1/messages": {"messages": SAID, "max_tokens": 1},
    "/v1/messages/count_tokens": {"messages": SAID},
}
"""Of the routes whose bodies have so many parts that a generated one seldom passes: to these, parts are added."""
STAGED = ("hang", "die", "slow", "long", "nan", "compute", "load", "fail")
"""Words by which the engine that stands in misbehaves, which a generator may find."""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    slots = {"toy": 2, "embeds": 2, "ranks": 2}
    with tempfile.TemporaryDirectory(prefix="gateway-") as folder, opened(Path(folder), slots) as made:
        yield made


def test_it_is_served_without_a_key_and_names_nothing_of_the_site(site: Site) -> None:
    status, headers, data = site.call("GET", "/openapi.json", key=None)
    assert (status, headers["content-type"], data) == (200, "application/json", description())
    assert not any(name.encode() in data for name in (*site.keys.values(), *site.models.values(), "embeds"))


def test_it_has_every_route_and_no_other() -> None:
    document = json.loads(description())
    assert document["openapi"] == "3.1.0"
    posts = {path for path, operations in document["paths"].items() if "post" in operations}
    assert posts == ROUTES.keys() == REQUEST_MODELS.keys()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["responses"].keys() >= {"200"}, (method, path)
            assert ("security" in operation) == (path.startswith("/v1/") or path in ROUTES)


def test_every_path_of_the_program_is_described(site: Site) -> None:
    """What is not described answers 404 or does not exist: the routes are listed by the program itself."""
    from appliance.host.site.api_keys import AccessStore
    from appliance.serve.gateway.messages import Plan
    from appliance.serve.gateway.routes import Gateway
    from tests.appliance.serve.gateway.site import NOW

    plan = Plan("a 1", "", "", "", "", ())
    application: Any = Gateway(plan, AccessStore(site.sockets / "access.db"), lambda: NOW).application()
    while not hasattr(application, "routes"):
        application = application._application
    assert {route.path.replace(":path", "") for route in application.routes} == {one.path for one in OPERATIONS}


@pytest.mark.ci
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
def test_whatever_is_sent_the_answer_is_as_described(site: Site, operation: Any) -> None:
    schema = schemathesis.openapi.from_dict(json.loads(description()))
    described = schema[operation.path][operation.method.upper()]
    modes: list[Any] = [GenerationMode.POSITIVE]
    if operation.method == "post":
        modes.append(GenerationMode.NEGATIVE)
    cases = st.one_of([described.as_strategy(generation_mode=mode) for mode in modes])
    statuses: Counter[int] = Counter()

    @settings(
        max_examples=EXAMPLES if operation.method == "post" else 5,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases, st.sampled_from((site.keys["all"],) * 9 + ("ak-wrong",)), st.integers(0, 4))
    def send(case: schemathesis.Case, key: str, chance: int) -> None:
        if isinstance(case.body, dict) and chance:
            if operation.path in SMALLEST and chance < 3:
                case.body = {**dict(list(case.body.items())[: chance - 1]), **SMALLEST[operation.path]}
            case.body["model"] = MODELS.get(operation.path, "toy")
        if any(word in json.dumps(case.body, default=str) for word in STAGED):
            return
        response = case.call(
            base_url=f"http://127.0.0.1:{site.port}", headers={"authorization": f"Bearer {key}"}, timeout=20
        )
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    send()
    assert statuses
    if operation.method == "post" and EXAMPLES >= 25:
        assert {200, 400} <= statuses.keys(), statuses
