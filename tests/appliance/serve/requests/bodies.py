"""Bodies of requests as nobody should send them: valid ones, with any number of fields changed, from one seed."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

from appliance.serve.requests.paths import (
    CHAT,
    COMPLETIONS,
    COUNT_TOKENS,
    DETOKENIZE,
    EMBEDDINGS,
    INPUT_TOKENS,
    MESSAGES,
    RERANKINGS,
    RESPONSES,
    TOKENIZE,
)

KNOWN = (
    *("model", "messages", "prompt", "input", "temperature", "top_p", "top_k", "min_p", "typical_p", "repeat_penalty"),
    *("repeat_last_n", "frequency_penalty", "presence_penalty", "seed", "stop", "logit_bias", "max_tokens", "n"),
    *(
        "stream",
        "stream_options",
        "user",
        "max_completion_tokens",
        "logprobs",
        "top_logprobs",
        "response_format",
        "tools",
    ),
    *("tool_choice", "parallel_tool_calls", "reasoning_effort", "chat_template_kwargs", "metadata", "encoding_format"),
    *("safety_identifier", "prompt_cache_key", "store", "service_tier", "audio", "modalities", "functions", "best_of"),
    *("content", "tokens", "with_pieces", "query", "documents", "top_n", "return_documents", "rank_fields"),
    *("echo", "suffix", "dimensions", "function_call", "prediction", "web_search_options", "verbosity"),
)
ENGINES = (
    *("chat_parser", "grammar", "json_schema", "lora", "id_slot", "n_predict", "n_probs", "samplers", "content"),
    *("grammar_triggers", "preserved_tokens", "cache_prompt", "add_generation_prompt", "continue_final_message"),
    *(
        "reasoning_format",
        "thinking_forced_open",
        "response_fields",
        "input_prefix",
        "t_max_predict_ms",
        "speculative.n_max",
    ),
)
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string", "pattern": "^[a-z]+$"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS, "strict": True}}
CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "x"}'}}
SAID = {"role": "user", "content": "x"}
TURNS = [SAID, {"role": "assistant", "tool_calls": [CALL]}]
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 8, 9, 1 << 31, 1 << 63, -(1 << 64), 10**30, 0.0, 0.5, -0.0, 1e300, 1e-300),
    *(
        "",
        "x",
        "auto",
        "none",
        "required",
        "text",
        "\x00",
        "\ud800",
        "é" * 9,
        "[" * 99,
        '{"a":' * 99,
        "null",
        "x" * 999,
    ),
    *([], {}, [None], [[]], [1, 2], ["a", "b"], [[1], [2]], [""], [{}], {"a": 1}, {"type": "text"}, {"10": 5}),
    *([TOOL], [TOOL, TOOL], {"type": "function", "function": {"name": "weather"}}, {"type": "json_object"}),
    {"type": "json_schema", "json_schema": {"name": "a", "schema": PARAMETERS}},
    {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "#/$defs/a", "$defs": {"a": PARAMETERS}}}},
    {"type": "json_object", "schema": {"allOf": [{"$ref": "#/allOf/0"}]}},
    {"include_usage": True},
    [{"role": "system", "content": "x"}, {"role": "user", "content": [{"type": "text", "text": "x"}]}],
    [*TURNS, {"role": "tool", "content": "1", "tool_call_id": "1"}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}],
)
THOUGHT = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "x"}]}
ITEMS = [
    {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
    THOUGHT,
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x", "annotations": []}]},
    {"type": "function_call", "call_id": "1", "name": "weather", "arguments": '{"city": "x"}'},
    {"type": "function_call_output", "call_id": "1", "output": "x"},
]
RESPONSES_TOOL = {"type": "function", "name": "weather", "parameters": PARAMETERS}
NAMED_SCHEMA = {"type": "json_schema", "name": "a", "schema": PARAMETERS}
TURNS_OF_BLOCKS = [
    {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "x", "signature": ""},
            {"type": "text", "text": "x"},
            {"type": "tool_use", "id": "1", "name": "weather", "input": {"city": "x"}},
        ],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "x", "is_error": True}]},
]
ANY = {"type": "any", "disable_parallel_tool_use": True}
MESSAGES_TOOL = {"name": "weather", "input_schema": PARAMETERS}
DIALECTS = (
    *("instructions", "max_output_tokens", "text", "format", "reasoning", "include", "previous_response_id", "items"),
    *("system", "stop_sequences", "thinking", "output_config", "tool_use_id", "input_schema", "is_error", "item_id"),
)
BASES: tuple[tuple[str, dict[str, Any]], ...] = (
    (CHAT, {"model": "toy", "messages": [SAID]}),
    (CHAT, {"model": "toy", "messages": [SAID], "tools": [TOOL], "tool_choice": "required"}),
    (CHAT, {"model": "toy", "messages": TURNS}),
    (COMPLETIONS, {"model": "toy", "prompt": ["x", "y"], "n": 2, "seed": 1}),
    (EMBEDDINGS, {"model": "toy", "input": ["x", "y"]}),
    (RESPONSES, {"model": "toy", "input": ITEMS, "tools": [RESPONSES_TOOL], "tool_choice": "required"}),
    (RESPONSES, {"model": "toy", "input": "x", "text": {"format": NAMED_SCHEMA}, "reasoning": {"effort": "low"}}),
    (INPUT_TOKENS, {"model": "toy", "input": ITEMS}),
    (
        MESSAGES,
        {"model": "toy", "max_tokens": 5, "messages": TURNS_OF_BLOCKS, "system": [{"type": "text", "text": "x"}]},
    ),
    (MESSAGES, {"model": "toy", "max_tokens": 5, "messages": [SAID], "tools": [MESSAGES_TOOL], "tool_choice": ANY}),
    (COUNT_TOKENS, {"model": "toy", "messages": TURNS_OF_BLOCKS, "thinking": {"type": "disabled"}}),
    (RERANKINGS, {"model": "toy", "query": "x", "documents": ["x", "y"]}),
    (TOKENIZE, {"model": "toy", "content": "x"}),
    (DETOKENIZE, {"model": "toy", "tokens": [1, 2]}),
)


def make_body(random: Random) -> tuple[str, dict[str, Any]]:
    """A route, and a body for it."""
    route, base = random.choice(BASES)
    body = copy.deepcopy(base)
    for _ in range(random.choice((0, 1, 1, 2, 3, 6))):
        place = _some_place(random, body)
        if isinstance(place, dict):
            name = random.choice((*KNOWN, *DIALECTS, *ENGINES, *place, random.choice(KNOWN) + "x"))
            if random.random() < 0.1:
                place.pop(name, None)
            else:
                place[name] = copy.deepcopy(random.choice(VALUES))
        elif place:
            place[random.randrange(len(place))] = copy.deepcopy(random.choice(VALUES))
        else:
            place.append(copy.deepcopy(random.choice(VALUES)))
    return route, body


def _some_place(random: Random, body: dict[str, Any]) -> dict[str, Any] | list[Any]:
    place: dict[str, Any] | list[Any] = body
    while random.random() < 0.45:
        inner = [one for one in (place.values() if isinstance(place, dict) else place) if isinstance(one, (dict, list))]
        if not inner:
            break
        place = random.choice(inner)
    return place
