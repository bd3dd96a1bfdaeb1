"""Which fields of a request pass, and how the others are refused: by name, with status 400, without their value."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.serve.requests.paths import CHAT, COMPLETIONS, EMBEDDINGS
from appliance.serve.requests.refusal import Refusal
from appliance.serve.requests.work import parse_request

SAID = [{"role": "user", "content": "x"}]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f"}}


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "toy", "messages": SAID, **fields}


def completion(**fields: Any) -> dict[str, Any]:
    return {"model": "toy", "prompt": "x", **fields}


def embedding(**fields: Any) -> dict[str, Any]:
    return {"model": "toy", "input": "x", **fields}


def refusal(path: str, body: dict[str, Any]) -> tuple[int, str, str | None]:
    with pytest.raises(Refusal) as caught:
        parse_request(path, body)
    return caught.value.status, caught.value.code, caught.value.param


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat()),
        (CHAT, chat(temperature=1, top_p=0.5, top_k=40, min_p=0.05, seed=-1, stop=["a", "b"], n=8, max_tokens=1)),
        (
            CHAT,
            chat(stop="a", logit_bias={"50256": -100}, logprobs=True, top_logprobs=20, user="u", metadata={"a": "b"}),
        ),
        (CHAT, chat(stream=True, stream_options={"include_usage": True, "include_obfuscation": False})),
        (
            CHAT,
            chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "f"}}, parallel_tool_calls=True),
        ),
        (CHAT, chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {}}})),
        (CHAT, chat(chat_template_kwargs={"enable_thinking": False}, reasoning_effort="low")),
        (CHAT, chat(store=False, audio=None, functions=[], modalities=["text"], service_tier="auto", n=None)),
        (CHAT, {"model": "toy", "messages": [{"role": "developer", "content": [{"type": "text", "text": "x"}]}]}),
        # As a client sends back what it got.
        (
            CHAT,
            chat(
                messages=[
                    {"role": "assistant", "content": None, "refusal": None, "annotations": [], "tool_calls": [CALL]}
                ]
            ),
        ),
        (CHAT, chat(messages=[{"role": "tool", "content": "x", "tool_call_id": "1"}])),
        (COMPLETIONS, completion(logprobs=5, best_of=1, echo=False, suffix="")),
        *((COMPLETIONS, completion(prompt=prompt)) for prompt in ([1, 2], ["a", "b"], [[1], [2]])),
        (EMBEDDINGS, embedding(encoding_format="base64", user="u")),
        *((EMBEDDINGS, embedding(input=texts)) for texts in ([1, 2], ["a"] * 2048, [[1], [2]])),
    ],
)
def test_what_openai_describes_passes(path: str, body: dict[str, Any]) -> None:
    assert parse_request(path, body).model == "toy"


ENGINE_ONLY = (
    *(
        "id_slot",
        "lora",
        "grammar",
        "grammar_lazy",
        "grammar_triggers",
        "chat_parser",
        "n_cmpl",
        "n_probs",
        "n_predict",
    ),
    *("cache_prompt", "json_schema", "samplers", "dry_sequence_breakers", "response_fields", "content", "input_prefix"),
    *(
        "t_max_predict_ms",
        "generation_prompt",
        "preserved_tokens",
        "message_delimiters",
        "return_tokens",
        "speculative.n_max",
    ),
)


@pytest.mark.parametrize("name", ENGINE_ONLY)
@pytest.mark.parametrize(("path", "make"), [(CHAT, chat), (COMPLETIONS, completion), (EMBEDDINGS, embedding)])
def test_field_that_no_route_names_is_refused_by_its_name(path: str, make: Any, name: str) -> None:
    assert refusal(path, make(**{name: "1"})) == (400, "unknown_field", name)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (CHAT, chat(audio={"voice": "x"}), "audio"),
        (CHAT, chat(functions=[{"name": "f"}]), "functions"),
        (CHAT, chat(store=True), "store"),
        (CHAT, chat(modalities=["text", "audio"]), "modalities"),
        (CHAT, chat(tools=[{"type": "custom", "custom": {"name": "f"}}]), "tools[0].type"),
        (CHAT, chat(tools=[TOOL], tool_choice={"type": "allowed_tools"}), "tool_choice.type"),
        (CHAT, chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "messages[0].content[0].type"),
        (COMPLETIONS, completion(echo=True), "echo"),
        (COMPLETIONS, completion(best_of=2), "best_of"),
        (COMPLETIONS, completion(suffix="y"), "suffix"),
        (EMBEDDINGS, embedding(dimensions=4), "dimensions"),
    ],
)
def test_field_of_openai_that_is_not_supported_is_named_as_such(path: str, body: dict[str, Any], field: str) -> None:
    assert refusal(path, body) == (400, "unsupported", field)


@pytest.mark.parametrize(
    ("path", "body", "code", "field"),
    [
        (CHAT, {"messages": SAID}, "field_missing", "model"),
        (CHAT, chat(model=7), "invalid_field", "model"),
        (CHAT, chat(messages=[]), "invalid_field", "messages"),
        (CHAT, chat(messages="x"), "invalid_field", "messages"),
        (CHAT, chat(messages=None), "field_missing", "messages"),
        (CHAT, chat(messages=[{"content": "x"}]), "invalid_field", "messages[0]"),
        (CHAT, chat(messages=[{"role": "alien", "content": "x"}]), "invalid_field", "messages[0]"),
        (CHAT, chat(messages=[{"role": "user"}]), "field_missing", "messages[0].content"),
        (CHAT, chat(messages=[{"role": "user", "content": 5}]), "invalid_field", "messages[0].content"),
        *((CHAT, chat(max_tokens=count), "invalid_field", "max_tokens") for count in (0, -1, 1 << 63, 1.5, "5", True)),
        *((CHAT, chat(temperature=heat), "invalid_field", "temperature") for heat in (-1, 3, "1", float("nan"))),
        (CHAT, chat(n=9), "invalid_field", "n"),
        (CHAT, chat(top_logprobs=21), "invalid_field", "top_logprobs"),
        (CHAT, chat(stop=["x"] * 17), "invalid_field", "stop"),
        (CHAT, chat(logit_bias={"x": 1}), "invalid_field", "logit_bias.x"),
        (CHAT, chat(tool_choice="any"), "invalid_field", "tool_choice"),
        (CHAT, chat(response_format={"type": "json_schema"}), "field_missing", "response_format.json_schema"),
        (
            CHAT,
            chat(response_format={"type": "json_schema", "json_schema": {"name": "a"}}),
            "field_missing",
            "response_format.json_schema.schema",
        ),
        (CHAT, chat(chat_template_kwargs={"a": 10**400}), "invalid_field", "chat_template_kwargs.a"),
        (CHAT, chat(metadata={str(at): "x" for at in range(17)}), "invalid_field", "metadata"),
        (CHAT, chat(response_format={"type": "grammar"}), "invalid_field", "response_format"),
        (CHAT, chat(chat_template_kwargs={"a": {"b": 1}}), "invalid_field", "chat_template_kwargs.a"),
        (COMPLETIONS, completion(prompt=None), "field_missing", "prompt"),
        (COMPLETIONS, completion(prompt=[]), "invalid_field", "prompt"),
        (COMPLETIONS, completion(prompt=["a", 1]), "invalid_field", "prompt[0]"),
        (EMBEDDINGS, embedding(input=None), "field_missing", "input"),
        (EMBEDDINGS, embedding(input=["x"] * 2049), "invalid_field", "input"),
    ],
)
def test_value_that_is_not_of_its_type_and_range_is_the_users_mistake(
    path: str, body: dict[str, Any], code: str, field: str
) -> None:
    assert refusal(path, body) == (400, code, field)


def test_refusal_repeats_no_value() -> None:
    with pytest.raises(Refusal) as caught:
        parse_request(CHAT, chat(messages=[{"role": "user", "content": {"canary": "canary"}}], temperature="canary"))
    assert "canary" not in caught.value.message


@pytest.mark.parametrize("fields", [{"metadata": {"k" * 9000: 1}}, {"logit_bias": {"9" * 9000: 1}}, {"k" * 9000: 1}])
def test_refusal_is_short_whatever_a_user_calls_a_field(fields: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        parse_request(CHAT, chat(**fields))
    assert len(caught.value.message) + len(caught.value.param or "") < 600
