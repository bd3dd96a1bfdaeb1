"""The engine's options are the same wherever it runs, and its reason for not loading a model is found in its output."""

from __future__ import annotations

import pytest

from appliance.engine_program import EngineSettings, engine_arguments, refusal_reason

REFUSED = """0.00.009.1 W load: token not found.0.00.009.2 E llama_model_load: error loading model: {}
0.00.009.3 E llama_model_load_from_file_impl: failed to load model
0.00.009.4 E srv  llama_server: exiting due to model loading error
"""


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (REFUSED.format("invalid split file name: x.gguf"), "invalid split file name: x.gguf"),
        (REFUSED.format("a" * 900), "a" * 300),
        (REFUSED.format("the first") + REFUSED.format("the last"), "the last"),
        (
            "src/llama-vocab.cpp:2544: GGML_ASSERT(id_to_token.size() == token_to_id.size()) failed\n",
            "GGML_ASSERT(id_to_token.size() == token_to_id.size()) failed",
        ),
        (
            "terminate called after throwing an instance of 'std::runtime_error'\n  what():  no such thing\n",
            "terminate called after throwing an instance of 'std::runtime_error' what(): no such thing",
        ),
        (
            "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 9\n",
            "failed to allocate buffer of size 9",
        ),
        ("loading\n[\n", ""),
        ("", ""),
    ],
)
def test_reason_is_the_engines_own(output: str, reason: str) -> None:
    assert refusal_reason(output) == reason


def test_context_is_that_of_all_slots_and_only_embedders_embed() -> None:
    settings = EngineSettings("/m.gguf", "m", "/s.sock", context=100, slots=3, threads=2)
    arguments = engine_arguments(settings)
    assert arguments[arguments.index("--ctx-size") + 1] == "300"
    assert "--embeddings" not in arguments
    assert "--embeddings" in engine_arguments(EngineSettings("/m.gguf", "m", "/s.sock", 100, 1, 2, is_embedding=True))
