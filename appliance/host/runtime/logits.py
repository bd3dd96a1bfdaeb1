"""What a model answers to one fixed prompt, number by number: how a CPU variant shows that it computes right.

Owns the prompt, the child process that evaluates it, and the comparison of two results. Run as a program, it loads one
variant and writes two rows of logits: one after reading the prompt at once, one after a single token more, since a
runtime computes the two in different ways.

Rules:
- one child for each variant: it may crash, hang or lie, and none of it reaches the parent;
- the numbers are 32-bit floats, little endian, in a file that the parent names; anything but finite numbers that differ
  from each other is no result;
- a model that makes embeddings gives two of them instead, each stretched to one size and taken for logits;
- results are compared as probabilities. Raw logits of a quantised model differ by up to 1 between variants that are all
  right, because each rounds in its own order; the distributions that they stand for hardly do.

Command line: `python -m appliance.host.runtime.logits RUNTIME VARIANT PACKAGE MODEL THREADS RESULT`, where PACKAGE is
the folder that holds the binding, or `-` for that of the environment.
"""

from __future__ import annotations

import array
import ctypes
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.host.runtime.loader import load_binding
from bundles.gguf.header import POOLED
from signing.errors import ApplianceError

PROMPT = b"The capital of France is Paris."
MAX_TOKENS = 5
"""Enough for the routines that compute four tokens at once, few enough for a machine that imitates its processor."""

STRETCHED = 3.0
"""The root mean square of an embedding that is taken for logits: spread as logits are, so that no few numbers decide.
A tenth of its length in errors then reaches the tolerance."""

TOLERANCE = 0.05
"""The largest divergence from the x64 variant, in nats. Right variants stay below 0.02, F16 models below 0.0001."""

ROWS = 2
MAX_BYTES = 16 << 20
_CONTEXT = 64


@dataclass(frozen=True, slots=True)
class Logits:
    """The numbers of one evaluation: `ROWS` rows with one number for each token of the vocabulary."""

    values: array.array[float]

    def divergence(self, other: Logits) -> float:
        """How far another evaluation is from this one: the mean Kullback-Leibler divergence of its rows, in nats.

        Infinite where the two are not of one model.
        """
        if len(self.values) != len(other.values):
            return math.inf
        width = len(self.values) // ROWS
        return sum(
            _divergence(self.values[at : at + width], other.values[at : at + width])
            for at in range(0, width * ROWS, width)
        ) / float(ROWS)


def read_logits(path: Path) -> Logits | None:
    """Read what a child wrote.

    Args:
        path: untrusted; the child was free to write anything.

    Returns:
        The logits; None where the file is no result.
    """
    try:
        # Whatever lies there, nothing is waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError:
        return None
    if not data or len(data) > MAX_BYTES or len(data) % (4 * ROWS):
        return None
    values = array.array("f")
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    # All the same is what a computation that never ran leaves behind.
    return Logits(values) if all(map(math.isfinite, values)) and min(values) < max(values) else None


def write_logits(path: Path, values: array.array[float]) -> None:
    """Write a result as `read_logits` reads it."""
    if sys.byteorder == "big":
        values.byteswap()
    path.write_bytes(values.tobytes())


def evaluate(binding: Any, model_path: Path, threads: int) -> array.array[float]:
    """Evaluate the fixed prompt.

    Args:
        binding: from `appliance.host.runtime.loader`.
        model_path: a verified GGUF.
        threads: for the runtime.

    Raises:
        ApplianceError: the runtime refuses the model or the prompt.
    """
    binding.llama_backend_init()
    model = binding.llama_model_load_from_file(bytes(model_path), binding.llama_model_default_params())
    if not model:
        raise _failed("the model was not loaded")
    params = binding.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = _CONTEXT, MAX_TOKENS, MAX_TOKENS
    params.n_threads = params.n_threads_batch = threads
    context = binding.llama_init_from_model(model, params)
    if not context:
        raise _failed("no context was made")
    is_embedding = binding.llama_pooling_type(context) in POOLED
    binding.llama_set_embeddings(context, is_embedding)
    vocabulary = binding.llama_model_get_vocab(model)
    tokens = _tokens(binding, vocabulary)
    width = binding.llama_model_n_embd_out(model) if is_embedding else binding.llama_vocab_n_tokens(vocabulary)
    values = array.array("f")
    for part in (tokens[:-1], tokens[-1:]):
        held = (ctypes.c_int32 * len(part))(*part)  # the batch points into it
        if binding.llama_decode(context, binding.llama_batch_get_one(held, len(part))) != 0:
            raise _failed("the prompt was not evaluated")
        row = (
            binding.llama_get_embeddings_seq(context, 0) if is_embedding else binding.llama_get_logits_ith(context, -1)
        )
        if not row:
            raise _failed("the model gives no numbers")
        found = array.array("f", ctypes.string_at(row, width * 4))
        values.extend(_stretched(found) if is_embedding else found)
    return values


def _stretched(row: array.array[float]) -> array.array[float]:
    mean = math.hypot(*row) / math.sqrt(len(row))
    return array.array("f", (number * STRETCHED / mean if mean else math.nan for number in row))


def main(arguments: list[str]) -> int:
    """The child: as in the module's docstring. What goes wrong ends it with a traceback or a signal."""
    runtime, variant, package, model, threads, result = arguments
    binding = load_binding(Path(runtime), variant, None if package == "-" else Path(package))
    values = evaluate(binding, Path(model), int(threads))
    write_logits(Path(result), values)
    return 0


def _tokens(binding: Any, vocabulary: Any) -> list[int]:
    room = (ctypes.c_int32 * (2 * len(PROMPT)))()
    count = binding.llama_tokenize(vocabulary, PROMPT, len(PROMPT), room, len(room), True, False)
    if count < 2:
        raise _failed("the prompt has no tokens")
    return list(room[: min(count, MAX_TOKENS)])


def _divergence(right: array.array[float], found: array.array[float]) -> float:
    most_right, most_found = max(right), max(found)
    weights = [math.exp(value - most_right) for value in right]
    total = sum(weights)
    # Of two softmaxes only the distance of the logits and the two sums remain, so that nothing is divided by zero.
    log_ratio = math.log(sum(math.exp(value - most_found) for value in found)) - math.log(total)
    mean = sum(weight * (one - two) for weight, one, two in zip(weights, right, found, strict=True)) / total
    return max(0.0, mean - (most_right - most_found) + log_ratio)


def _failed(found: str) -> ApplianceError:
    return ApplianceError("logits.failed", "the fixed prompt", expected="an evaluation", found=found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
