"""What a GGUF is for is told by its header, and what no engine could serve is named."""

from __future__ import annotations

import io

import pytest

from bundles.gguf.header import GgufHeader, read_header
from bundles.gguf.kind import CHAT, EMBED, MAX_TENSOR_NAME, RERANK, judge_kind, most_context, task_of
from signing.errors import ApplianceError, NotTrustedError, UsageError
from tests.sim.gguf_files import string_key
from tests.sim.gguf_models import number_key
from tests.sim.odd_models import EMBEDDER, REFUSED, RERANKER, WHOLE, key, servable, tokens_key

KNOWN = frozenset(["llama", "bert", "nomic-bert", "clip", "dream", "t5", "qwen3", "imatrix"])


def read(data: bytes) -> GgufHeader:
    return read_header(io.BytesIO(data), len(data), "model tiny")


def judge(data: bytes, known: frozenset[str] | None = KNOWN) -> str:
    header = read(data)
    return judge_kind(header, data[: header.data_start], "model tiny", known)


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_by_what_it_is(data: bytes, words: str) -> None:
    with pytest.raises(ApplianceError) as caught:
        judge(data)
    error = caught.value
    assert isinstance(error, (UsageError, NotTrustedError))
    assert error.code in ("model.kind", "gguf.refused")
    assert words in f"{error.expected}; {error.found}"


@pytest.mark.parametrize("name", ["an empty file", "a pointer of Git LFS", "a web page", "a big-endian file"])
def test_file_that_is_no_gguf_comes_with_a_next_step(name: str) -> None:
    with pytest.raises(NotTrustedError) as caught:
        judge(REFUSED[name][0])
    assert caught.value.hint


@pytest.mark.parametrize(
    ("data", "task"),
    [
        (servable(), CHAT),
        (servable(template=None), CHAT),
        (EMBEDDER, EMBED),
        (RERANKER, RERANK),
        (servable(arch="qwen3", keys=(number_key("qwen3.pooling_type", 3),)), EMBED),
        (servable(arch="qwen3", keys=(number_key("qwen3.pooling_type", 4),)), RERANK),
        (servable(keys=(number_key("llama.pooling_type", 0),)), CHAT),
        (servable(words=(string_key("tokenizer.ggml.model", "gpt2"), tokens_key("a", "", "b", ""))), CHAT),
        (servable(tensors=(*WHOLE, ("x" * MAX_TENSOR_NAME, (32,)))), CHAT),
        (servable(keys=(key("split.count", 2, "H", 1),)), CHAT),
    ],
)
def test_task_is_read_from_the_header(data: bytes, task: str) -> None:
    assert judge(data) == task == task_of(read(data))


def test_architecture_is_not_judged_where_no_runtime_is_at_hand() -> None:
    assert judge(servable(arch="madeup9"), None) == CHAT


def test_text_is_embedded_in_one_piece_so_a_longer_context_is_none() -> None:
    assert most_context(read(servable(context=2048)), CHAT) == 2048
    assert most_context(read(servable(context=2048)), EMBED) == 512
    assert most_context(read(servable(context=256)), EMBED) == 256


def test_encoder_ranks_in_one_piece_and_a_causal_model_in_many() -> None:
    assert most_context(read(RERANKER), RERANK) == 512
    causal = servable(context=2048, arch="qwen3", keys=(number_key("qwen3.pooling_type", 4),))
    assert most_context(read(causal), RERANK) == 2048
