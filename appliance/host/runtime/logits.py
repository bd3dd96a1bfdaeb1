"""The logits of a model for one fixed prompt: the evidence that a CPU variant computes right.

Owns the prompt, the child process that evaluates it, and the comparison of two results. The child loads one variant and
writes two rows of logits: one after a batch of several tokens, one after a single token more. A runtime computes the
two in different ways.

An installer of another version may start the child: `tests/released/test_protocols.py` holds its arguments.

Rules:
- each variant has a child of its own: it may crash, hang or give wrong numbers without harm to the parent;
- the numbers are 32-bit floats, little endian, in a file that the parent names. The parent accepts only finite numbers
  that are not all the same;
- a model that makes embeddings gives two of them instead, each scaled to one size, in place of logits;
- so does a model that ranks: its one score would hide an error that the many numbers before it show;
- results are compared as probabilities. Raw logits of a quantised model differ by up to 1 between right variants,
  because each rounds in another order; their probabilities hardly differ.

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
from bundles.gguf.kind import RANKED
from signing.errors import ApplianceError

PROMPT = b"The capital of France is Paris."
MAX_TOKENS = 5
"""Enough for the routines that compute four tokens at once, few enough for an emulated processor."""

STRETCHED = 3.0
"""The root mean square to which an embedding is scaled: about that of logits, so that many numbers count.
An error of a tenth of its length then reaches the tolerance."""

TOLERANCE = 0.05
"""The largest divergence from the x64 variant, in nats. Right variants stay below 0.02; with F16 models, 0.0001."""

ROWS = 2
MAX_BYTES = 16 << 20
_CONTEXT = 64
_MEAN = 1
"""The pooling type that takes the mean of all tokens."""


@dataclass(frozen=True, slots=True)
class Logits:
    """The numbers of one evaluation: `ROWS` rows with one number for each token of the vocabulary."""

    values: array.array[float]

    def divergence(self, other: Logits) -> float:
        """The mean Kullback-Leibler divergence of another evaluation's rows from these, in nats.

        Args:
            other: of the same model; the result is infinite where it has another number of values.
        """
        if len(self.values) != len(other.values):
            return math.inf
        width = len(self.values) // ROWS
        return sum(
            _divergence(self.values[at : at + width], other.values[at : at + width])
            for at in range(0, width * ROWS, width)
        ) / float(ROWS)


def read_logits(path: Path) -> Logits | None:
    """Read the result of a child.

    Args:
        path: untrusted; the child may have written anything.

    Returns:
        The logits; None where the file is no result.
    """
    try:
        # Opening must not block, whatever kind of file this is.
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
    # Where nothing was computed, all values are the same.
    return Logits(values) if all(map(math.isfinite, values)) and min(values) < max(values) else None


def write_logits(path: Path, values: array.array[float]) -> None:
    """Write a result in the form that `read_logits` reads."""
    if sys.byteorder == "big":
        values.byteswap()
    path.write_bytes(values.tobytes())


def evaluate(binding: Any, model_path: Path, threads: int) -> array.array[float]:
    """Evaluate the fixed prompt, in the child.

    Args:
        binding: from `load_binding`.
        model_path: a verified GGUF.
        threads: for the runtime.

    Returns:
        `ROWS` rows, one after the other.

    Raises:
        ApplianceError: the runtime refuses the model or the prompt.
    """
    binding.llama_backend_init()
    model = binding.llama_model_load_from_file(bytes(model_path), binding.llama_model_default_params())
    if not model:
        raise _failed("the model was not loaded")
    context = _make_context(binding, model, threads)
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


def _make_context(binding: Any, model: Any, threads: int) -> Any:
    params = binding.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = _CONTEXT, MAX_TOKENS, MAX_TOKENS
    params.n_threads = params.n_threads_batch = threads
    context = binding.llama_init_from_model(model, params)
    if context and binding.llama_pooling_type(context) == RANKED:
        binding.llama_free(context)
        params.pooling_type = _MEAN
        context = binding.llama_init_from_model(model, params)
    if not context:
        raise _failed("no context was made")
    return context


def _stretched(row: array.array[float]) -> array.array[float]:
    mean = math.hypot(*row) / math.sqrt(len(row))
    return array.array("f", (number * STRETCHED / mean if mean else math.nan for number in row))


def main(arguments: list[str]) -> int:
    """Run the child, with the arguments of the module's docstring; an error ends it with a traceback or a signal."""
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
    # The logarithm of a quotient of two softmaxes: the difference of the logits and of two logarithms of sums. Thus no
    # probability that is rounded to zero divides anything.
    log_ratio = math.log(sum(math.exp(value - most_found) for value in found)) - math.log(total)
    mean = sum(weight * (one - two) for weight, one, two in zip(weights, right, found, strict=True)) / total
    return max(0.0, mean - (most_right - most_found) + log_ratio)


def _failed(found: str) -> ApplianceError:
    return ApplianceError("logits.failed", "the fixed prompt", expected="an evaluation", found=found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
