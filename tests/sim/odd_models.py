"""Small GGUF files with odd headers: what people put into a recipe by mistake, each with what it is.

`servable` is a model that an engine loads; every other file here differs from it in one thing.
"""

from __future__ import annotations

import gzip
import random
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod

from tests.sim.gguf_files import ALIGNMENT, F32, TEXT, U32, head, string_key, tensor_info, text
from tests.sim.gguf_models import any_words, array_key, float_key, number_key

WIDTH, WIDE, WORDS = 32, 64, 354
I32, F32_VALUE, BOOL, U16, U64 = 5, 6, 7, 2, 10
TOKENS = "tokenizer.ggml.tokens"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
Tensors = Sequence[tuple[str, Sequence[int]]]
WHOLE: Tensors = (
    ("token_embd.weight", (WIDTH, WORDS)),
    ("output_norm.weight", (WIDTH,)),
    ("output.weight", (WIDTH, WORDS)),
    ("blk.0.attn_norm.weight", (WIDTH,)),
    *((f"blk.0.attn_{name}.weight", (WIDTH, WIDTH)) for name in ("q", "k", "v", "output")),
    ("blk.0.ffn_norm.weight", (WIDTH,)),
    ("blk.0.ffn_gate.weight", (WIDTH, WIDE)),
    ("blk.0.ffn_up.weight", (WIDTH, WIDE)),
    ("blk.0.ffn_down.weight", (WIDE, WIDTH)),
)


@cache
def noise(count: int) -> bytes:
    """So many small weights, the same for each tensor of that size: fifty models of them are made in each run."""
    chance = random.Random(count)
    return struct.pack(f"<{count}f", *(chance.uniform(-0.05, 0.05) for _ in range(count)))


@dataclass(frozen=True)
class Odd:
    """The parts of a small model; change a part to make it odd.

    Args:
        arch: `general.architecture`; empty for none.
        words: the keys of the tokenizer.
        context: that it was trained for; 0 for no such key.
        template: of the chat; None for none.
        keys: further ones.
        without: beginnings of the names of keys that are left out.
        tensors: name and dimensions.
    """

    arch: str = "llama"
    words: tuple[bytes, ...] = tuple(any_words(WORDS))
    context: int = 512
    template: str | None = None
    keys: tuple[bytes, ...] = ()
    without: tuple[str, ...] = ()
    tensors: Tensors = WHOLE

    def data(self) -> bytes:
        """The whole file; its weights are noise."""
        keys = [data for name, data in self._keys() if not name.startswith(self.without or "\0")]
        keys += [*self.words, *self.keys]
        infos, weights = b"", b""
        for name, dims in self.tensors:
            infos += tensor_info(name, dims, F32, len(weights))
            weights += noise(prod(dims))
            weights += bytes(-len(weights) % ALIGNMENT)
        front = head(len(keys), len(self.tensors)) + b"".join(keys) + infos
        return front + bytes(-len(front) % ALIGNMENT) + weights

    def _keys(self) -> Iterable[tuple[str, bytes]]:
        sizes = {
            "context_length": self.context,
            "embedding_length": WIDTH,
            "block_count": 1,
            "feed_forward_length": WIDE,
            "attention.head_count": 2,
            "attention.head_count_kv": 2,
            "rope.dimension_count": WIDTH // 2,
            "vocab_size": WORDS,
        }
        if self.arch:
            yield "general.architecture", string_key("general.architecture", self.arch)
        yield "general.name", string_key("general.name", "tiny")
        for name, size in sizes.items():
            if size:
                yield f"arch.{name}", number_key(f"{self.arch}.{name}", size)
        for name in ("layer_norm_rms_epsilon", "layer_norm_epsilon"):
            yield name, float_key(f"{self.arch}.attention.{name}", 1e-5)
        if self.template is not None:
            yield "tokenizer.chat_template", string_key("tokenizer.chat_template", self.template)


MODEL = Odd(template=CHATML)


def servable(**changes: object) -> bytes:
    """A model that chats and that an engine loads; `changes` are those of the fields of `Odd`."""
    return replace(MODEL, **changes).data()  # type: ignore[arg-type]


def key(name: str, kind: int, form: str, value: float) -> bytes:
    """A GGUF key with a number of any type."""
    return text(name) + struct.pack(f"<I{form}", kind, value)


def split_keys(number: int, count: int, tensors: int) -> tuple[bytes, ...]:
    """The keys of one part of a split GGUF."""
    return (
        key("split.no", U16, "H", number),
        key("split.count", U16, "H", count),
        key("split.tensors.count", I32, "i", tensors),
    )


def split_parts(count: int = 2) -> list[bytes]:
    """A whole set: the first part with all keys, the others with those of the split alone, as llama-gguf-split does."""
    share = -(-len(WHOLE) // count)
    parts = [WHOLE[at * share : (at + 1) * share] for at in range(count)]
    first = replace(MODEL, keys=split_keys(0, count, len(WHOLE)), tensors=parts[0]).data()
    others = [
        Odd("", (), 0, None, split_keys(at, count, len(WHOLE)), ("general", "arch", "layer"), tensors).data()
        for at, tensors in enumerate(parts[1:], 1)
    ]
    return [first, *others]


def _typed(kind: str, tensors: Tensors, *keys: bytes, arch: str = "llama") -> bytes:
    typed = (string_key("general.type", kind), *keys)
    return Odd(arch, (), 0, None, typed, ("general.name", "layer", "arch."), tensors).data()


def _pooled(arch: str, pooling: int) -> bytes:
    keys = (number_key(f"{arch}.pooling_type", pooling), key(f"{arch}.attention.causal", BOOL, "?", False))
    return Odd(arch, keys=keys).data()


def tokens_key(*tokens: str) -> bytes:
    """The key of a vocabulary."""
    return array_key(TOKENS, TEXT, [text(token) for token in tokens])


def _words(tokens: bytes) -> tuple[bytes, ...]:
    kind, _, *rest = any_words(WORDS)
    return (kind, tokens, *rest)


_LORA: Tensors = (("blk.0.attn_q.weight.lora_a", (WIDTH, 8)), ("blk.0.attn_q.weight.lora_b", (8, WIDTH)))

REFUSED: dict[str, tuple[bytes, str]] = {
    "the first part of a split GGUF": (split_parts()[0], "part 1 of 2 of a split GGUF"),
    "the second part of a split GGUF": (split_parts()[1], "part 2 of 2 of a split GGUF"),
    "parts that were joined by their bytes": (b"".join(split_parts()), "part 1 of 2 of a split GGUF"),
    "a projector": (_typed("mmproj", [("v.patch_embd.weight", (32, 32))], arch="clip"), "mmproj"),
    "an adapter": (_typed("adapter", _LORA, string_key("adapter.type", "lora")), "a LoRA adapter"),
    "an adapter that does not say so": (servable(tensors=_LORA), "a LoRA adapter"),
    "an importance matrix": (_typed("imatrix", [("a.in_sum2", (32, 1))], arch="imatrix"), "an importance matrix"),
    "an importance matrix without architecture": (_typed("imatrix", [("a.in_sum2", (32, 1))], arch=""), "'imatrix'"),
    "a type that nobody knows": (servable(keys=(string_key("general.type", "moon"),)), "'moon'"),
    "a vocabulary": (servable(tensors=()), "a vocabulary alone"),
    "a part of a model": (servable(tensors=WHOLE[1:]), "no tensor token_embd.weight"),
    "no architecture": (servable(arch=""), "the key general.architecture"),
    "an unknown architecture": (servable(arch="madeup9"), "'madeup9'"),
    "an encoder for images": (servable(arch="clip"), "an encoder for images"),
    "a diffusion model": (servable(arch="dream"), "a diffusion model"),
    "an encoder with a decoder": (servable(arch="t5"), "an encoder with a decoder"),
    "an encoder without pooling": (servable(arch="bert"), "without bert.pooling_type"),
    "an encoder with no pooling": (_pooled("nomic-bert", 0), "without nomic-bert.pooling_type"),
    "no tokenizer": (servable(words=()), "without a tokenizer"),
    "a tokenizer of no kind": (
        servable(words=(string_key("tokenizer.ggml.model", "no_vocab"),)),
        "without a tokenizer",
    ),
    "a tokenizer without tokens": (servable(words=any_words(WORDS)[:1]), "without a tokenizer"),
    "tokens that are one text": (servable(words=_words(string_key(TOKENS, "x" * 99))), "without a tokenizer"),
    "tokens that are numbers": (servable(words=_words(array_key(TOKENS, U32, [bytes(4)]))), "without a tokenizer"),
    "a token twice": (servable(words=_words(tokens_key(*"abca"))), "the token 'a' twice"),
    "a long name of a tensor": (servable(tensors=(*WHOLE, ("blk.0." + "x" * 58, (32,)))), "a name of 64 bytes"),
    "no context": (servable(context=0), "no key llama.context_length"),
    "a context that is a fraction": (
        servable(context=0, keys=(key("llama.context_length", F32_VALUE, "f", 512.0),)),
        "no key llama.context_length",
    ),
    "a context of 64 bits": (
        servable(context=0, keys=(key("llama.context_length", U64, "Q", 512),)),
        "no key llama.context_length",
    ),
    "an array in an array": (
        servable(keys=(text("x.nested") + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", U32, 0),)),
        "an array of numbers or texts",
    ),
    "a key with a space": (servable(keys=(string_key("general.my note", "x"),)), "printable ASCII"),
    "a key of other letters": (servable(keys=(string_key("général.note", "x"),)), "printable ASCII"),
    "a key without a name": (servable(keys=(string_key("", "x"),)), "printable ASCII"),
    "an architecture that is a number": (
        servable(without=("general.arch",), keys=(number_key("general.architecture", 1),)),
        "the key general.architecture",
    ),
    "a tensor of no dimension": (servable(tensors=(*WHOLE, ("v", ()))), "1 to 4 dimensions"),
    "a file that ends too early": (servable()[:-200], "the last tensors are missing"),
    "an empty file": (b"", "an empty file"),
    "a pointer of Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 98362432\n",
        "a pointer of Git LFS",
    ),
    "a web page": (b"<!DOCTYPE html>\n<html><title>404</title><body>Entry not found</body></html>", "a web page"),
    "a big-endian file": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(99), "a big-endian GGUF of version 3"),
    "version 1": (b"GGUF" + struct.pack("<III", 1, 0, 0) + bytes(99), "version 1"),
    "four bytes": (b"GGUF", "a GGUF that ends after its first bytes"),
    "safetensors": (
        struct.pack("<Q", 54) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' + bytes(4),
        "a safetensors file",
    ),
    "a gzip file": (gzip.compress(servable(), mtime=0), "a gzip file"),
    "a ZIP file": (b"PK\x03\x04" + bytes(99), "a ZIP file"),
    "an old GGML file": (b"lmgg" + bytes(99), "a GGML file"),
    "a pickle": (b"\x80\x02}q\x00" + bytes(99), "a pickle of Python"),
    "text": (("not a model, but a note: ⚠\n" * 40).encode(), "text"),
    "noise": (random.Random(2).randbytes(999), "other first bytes"),
}
"""Files that nobody could serve, each with what is said of it."""

RERANKER = _pooled("bert", 4)
EMBEDDER = _pooled("bert", 1)

SERVED: dict[str, bytes] = {
    "a model that chats": servable(),
    "no template": servable(template=None),
    "an emoji in its template": servable(template=CHATML + "{# ⚠\ufe0f keep #}"),
    "bytes after its weights": servable() + b"\n",
    "a pooling type of none": servable(keys=(number_key("llama.pooling_type", 0),)),
}
"""Files that look odd, and that an engine serves."""

UNSERVED: dict[str, bytes] = {
    "a tensor too many": servable(tensors=(*WHOLE, ("v.more", (32,)))),
    "a tensor too few": servable(tensors=WHOLE[:-1]),
    "a tokenizer that lacks bytes": servable(words=_words(tokens_key(*map(chr, range(0x20, 0x20 + WORDS))))),
}
"""Files whose header is right, and that no engine serves: only loading them shows it."""
