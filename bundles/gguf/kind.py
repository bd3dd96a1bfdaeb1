"""What a GGUF is for: a model that chats, one that embeds, one that ranks, or no model that an engine could serve.

Owns the list of what an engine needs of a file before it is worth starting one, and the task of a model. It never reads
weights: a file that passes may still lack a tensor, which only loading it shows.

Rules:
- a file is a model where its `general.type` is `model` or absent, and it is whole: no part of a split one;
- its architecture is one that the runtime lists, and that turns text into text or numbers;
- it has a tokenizer without a token that stands twice, the sizes that llama.cpp asks for, and
  tensors with names that llama.cpp can store;
- a model with a pooling type embeds or ranks; one without chats, unless it is an encoder: then nothing states how to
  pool, and it is refused.

Source: llama.cpp as vendored by llama-cpp-python 0.3.36: `llm_load_arch`, `llama_vocab::impl::load`, `gguf.cpp`.
"""

from __future__ import annotations

import struct

from bundles.contents.contents import TASKS
from bundles.gguf.header import POOLED, GgufHeader, KeySpan
from bundles.gguf.memory import BATCH_TOKENS
from signing.errors import UsageError

CHAT, EMBED, RERANK = TASKS
CODE = "model.kind"
MAX_TENSOR_NAME = 63
"""Bytes in the name of a tensor: GGML_MAX_NAME less its end."""
RANKED = 4
ENCODERS = frozenset(
    [
        *("bert", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "llama-embed", "modern-bert"),
        *("neo-bert", "nomic-bert", "nomic-bert-moe", "t5encoder"),
    ]
)
"""Architectures that make vectors of a text, and no text."""
DIFFUSION = frozenset(["dream", "llada", "llada-moe", "rnd1"])
"""Architectures that write all words of an answer at once, which `llama-server` does not do."""
OTHERS = {
    "clip": "an encoder for images or sound",
    "dflash": "a drafter, which needs the model that it drafts for",
    "eagle3": "a drafter, which needs the model that it drafts for",
    "gemma4-assistant": "a drafter, which needs the model that it drafts for",
    "pockettts": "a model that speaks",
    "qwen3tts": "a model that speaks",
    "t5": "an encoder with a decoder, which `llama-server` does not serve",
    "wavtokenizer-dec": "a model that makes sound",
}
"""Architectures that llama.cpp lists and that do not answer a text with text or numbers, with what they are."""
_TYPES = {
    "adapter": ("a LoRA adapter", "merge it into its base model first: llama-export-lora"),
    "mmproj": ("a projector for images or sound (mmproj)", "name the language model that it belongs to"),
    "imatrix": ("an importance matrix", "it helps to quantise a model: name the model"),
}
_SIZES = ("context_length", "embedding_length", "block_count")
_LENGTH = struct.Struct("<Q")
_ARRAY_HEAD = struct.Struct("<IQ")
_TYPE = struct.Struct("<I")
_U32, _TEXT = 4, 8


def judge_kind(header: GgufHeader, head: bytes, subject: str, architectures: frozenset[str] | None = None) -> str:
    """Judge whether an engine could serve a file, and as what.

    Args:
        header: of the file.
        head: the bytes of the file before its weights.
        subject: the model, for errors.
        architectures: those that the runtime lists; None where there is no runtime, then any is taken.

    Returns:
        One of `TASKS`.

    Raises:
        UsageError: it is something else than a model that can be served; the error names it.
    """
    _check_type(header, subject)
    check_whole(header, subject)
    _check_architecture(header, subject, architectures)
    _check_tensors(header, subject)
    _check_tokenizer(header, head, subject)
    _check_sizes(header, head, subject)
    return _find_task(header, subject)


def check_whole(header: GgufHeader, subject: str) -> None:
    """Refuse a part of a split GGUF.

    Raises:
        UsageError: it is one.
    """
    parts, part = header.number("split.count", absent=1), header.number("split.no")
    if parts > 1 or part > 0:
        hint = "name all parts in their order: source: [PART 1, PART 2, …]"
        raise not_served(subject, f"part {part + 1} of {parts} of a split GGUF", hint)


def most_context(header: GgufHeader, task: str) -> int:
    """The longest context that a model can be served with, in tokens; 0 where its file does not state any.

    llama.cpp computes a text in one batch where all of its tokens count for the result.
    """
    if task == CHAT or (task == RERANK and not _is_encoder(header)):
        return header.context
    return min(header.context or BATCH_TOKENS, BATCH_TOKENS)


def task_of(header: GgufHeader) -> str:
    """The task of a model that `judge_kind` accepted."""
    pooling = header.values.get(f"{header.architecture}.pooling_type")
    return EMBED if pooling in POOLED else RERANK if pooling == RANKED else CHAT


def not_served(subject: str, found: str, hint: str) -> UsageError:
    """The error for a file that is no model which an engine could serve."""
    expected = "a whole model that chats, embeds or ranks, as a GGUF with its tokenizer"
    return UsageError(CODE, subject, expected=expected, found=found, hint=hint)


_OTHER_FILE = "take another file of this model, or convert it again with llama.cpp's converter"


def _check_type(header: GgufHeader, subject: str) -> None:
    kind = header.values.get("general.type", "model")
    if kind != "model":
        what, hint = _TYPES.get(str(kind), (f"a file of type {kind!r}", "name the model itself"))
        raise not_served(subject, f"{what}, by its general.type", hint)


def _check_architecture(header: GgufHeader, subject: str, architectures: frozenset[str] | None) -> None:
    name = header.architecture
    if name in OTHERS:
        raise not_served(subject, f"the architecture {name}: {OTHERS[name]}", "name a language model")
    if name in DIFFUSION:
        found = f"the architecture {name}: a diffusion model, which `llama-server` does not serve"
        raise not_served(subject, found, "name a language model that writes word after word")
    if architectures is not None and name not in architectures:
        hint = "take a newer `llama_cpp_python` in the recipe that knows it, or another model"
        raise not_served(subject, f"the architecture {name!r}, which this release of llama.cpp does not know", hint)


def _check_tensors(header: GgufHeader, subject: str) -> None:
    names = [tensor.name for tensor in header.tensors]
    if not names:
        raise not_served(subject, "a vocabulary alone, without weights", "name the file with the weights")
    if long := next((name for name in names if len(name) > MAX_TENSOR_NAME), ""):
        raise not_served(subject, f"a tensor with a name of {len(long)} bytes, {long[:40]}…", _OTHER_FILE)
    if any(name.endswith((".lora_a", ".lora_b")) for name in names):
        raise not_served(subject, "a LoRA adapter, by its tensors", _TYPES["adapter"][1])
    if "token_embd.weight" not in names:
        raise not_served(subject, "no tensor token_embd.weight, so a part of a model", "name the whole model")


def _check_tokenizer(header: GgufHeader, head: bytes, subject: str) -> None:
    kind = header.values.get("tokenizer.ggml.model")
    tokens = _tokens(header, head)
    if not isinstance(kind, str) or kind in ("no_vocab", "none") or not tokens:
        raise not_served(subject, "a model without a tokenizer", _OTHER_FILE)
    _check_distinct(tokens, subject)


def _check_distinct(tokens: list[bytes], subject: str) -> None:
    named = [token for token in tokens if token]  # llama.cpp gives each empty one a name of its own
    if len(set(named)) == len(named):
        return
    seen: set[bytes] = set()
    for token in named:
        if token in seen:
            text = ascii(token.decode("utf-8", "replace"))[:60]
            raise not_served(subject, f"the token {text} twice, which ends llama.cpp", _OTHER_FILE)
        seen.add(token)


def _tokens(header: GgufHeader, head: bytes) -> list[bytes]:
    """The tokens of the vocabulary; empty where the key is no list of texts. The header's reader has checked it."""
    span = _span(header, "tokenizer.ggml.tokens")
    if span is None:
        return []
    at = span.end - span.value_bytes
    # A list begins with the type of its items and their number.
    kind, count = _ARRAY_HEAD.unpack_from(head, at) if span.value_bytes >= _ARRAY_HEAD.size else (0, 0)
    if kind != _TEXT or span.name in header.values:
        return []
    found, at = [], at + _ARRAY_HEAD.size
    for _ in range(count):
        (size,) = _LENGTH.unpack_from(head, at)
        at += _LENGTH.size
        found.append(head[at : at + size])
        at += size
    return found


def _span(header: GgufHeader, name: str) -> KeySpan | None:
    return next((span for span in header.spans if span.name == name), None)


def _check_sizes(header: GgufHeader, head: bytes, subject: str) -> None:
    for size in _SIZES:
        name = f"{header.architecture}.{size}"
        span = _span(header, name)
        # The type of a value stands before it. llama.cpp takes no other type for these keys.
        kind = _TYPE.unpack_from(head, span.end - span.value_bytes - _TYPE.size)[0] if span else None
        if kind != _U32 or not header.number(name):
            raise not_served(subject, f"no key {name} with a count of 32 bits", _OTHER_FILE)


def _find_task(header: GgufHeader, subject: str) -> str:
    name = header.architecture
    task = task_of(header)
    if task == CHAT and _is_encoder(header):
        found = f"the encoder {name} without {name}.pooling_type: nothing states how it makes an embedding of a text"
        hint = "convert it again with the files of its pooling (1_Pooling/config.json) beside it, or take another file"
        raise not_served(subject, found, hint)
    return task


def _is_encoder(header: GgufHeader) -> bool:
    name = header.architecture
    return name in ENCODERS or header.values.get(f"{name}.attention.causal") is False
