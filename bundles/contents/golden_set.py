"""A golden set: prompts, each with the answers that are accepted (FORMAT 3.4).

Owns the form of a file of kind `golden-set`. A build checks it before it packs the file; a host reads it again from
verified bytes before it lets a model serve. It must never ask a model.

Rules:
- one line of strict JSON for each prompt, with exactly the fields `prompt`, `max_tokens` and `accept`;
- an answer is accepted by a regular expression, since greedy text differs between CPU variants;
- the limits keep a trial short: a host asks every prompt before each switch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from signing.errors import NotTrustedError
from signing.strictjson import Json, load

MAX_SET_BYTES = 64 << 10
MAX_PROMPTS = 32
MAX_PROMPT_CHARS, MAX_ACCEPT_CHARS, MAX_ANSWER_TOKENS = 4000, 500, 256
_FIELDS = ("accept", "max_tokens", "prompt")


@dataclass(frozen=True)
class GoldenPrompt:
    """A prompt with the answer that is expected.

    Args:
        prompt: the user's message, 1 to 4 000 characters.
        max_tokens: where the answer is cut, 1 to 256.
        accept: a regular expression of 1 to 500 characters that must be found in the answer.
    """

    prompt: str
    max_tokens: int
    accept: str


def parse_golden_set(data: bytes, subject: str) -> tuple[GoldenPrompt, ...]:
    """Parse a golden set.

    Args:
        data: the whole file, untrusted or verified.
        subject: its name, for the error.

    Returns:
        1 to 32 prompts, in the order of the file.

    Raises:
        NotTrustedError: a line breaks the form; its number is named.
    """
    if len(data) > MAX_SET_BYTES:
        raise _refuse(subject, f"at most {MAX_SET_BYTES} bytes", f"{len(data)} bytes")
    lines = data.split(b"\n")
    if lines[-1]:
        raise _refuse(subject, "a newline at the end of each line", "a last line without one")
    if not 1 <= len(lines) - 1 <= MAX_PROMPTS:
        raise _refuse(subject, f"1 to {MAX_PROMPTS} lines", f"{len(lines) - 1}")
    return tuple(_prompt(line, f"{subject} line {number}") for number, line in enumerate(lines[:-1], 1))


def _prompt(line: bytes, subject: str) -> GoldenPrompt:
    value = load(line, subject, MAX_SET_BYTES)
    if not isinstance(value, dict) or tuple(sorted(value)) != _FIELDS:
        raise _refuse(subject, "an object with prompt, max_tokens and accept alone", _shape(value))
    tokens = value["max_tokens"]
    if type(tokens) is not int or not 1 <= tokens <= MAX_ANSWER_TOKENS:
        raise _refuse(subject, f"max_tokens from 1 to {MAX_ANSWER_TOKENS}", repr(tokens)[:80])
    accept = _text(value["accept"], "accept", MAX_ACCEPT_CHARS, subject)
    try:
        re.compile(accept)
    except (re.error, OverflowError, RecursionError) as error:
        raise _refuse(subject, "accept: a regular expression", f"{accept[:80]!r}: {error}"[:200]) from None
    return GoldenPrompt(_text(value["prompt"], "prompt", MAX_PROMPT_CHARS, subject), tokens, accept)


def _text(value: Json, field: str, most: int, subject: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= most:
        found = f"{len(value)} characters" if isinstance(value, str) else repr(value)[:80]
        raise _refuse(subject, f"{field}: a text of 1 to {most} characters", found)
    return value


def _shape(value: Json) -> str:
    return f"the fields {', '.join(sorted(value))}"[:200] if isinstance(value, dict) else repr(value)[:80]


def _refuse(subject: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError("golden.refused", subject, expected=expected, found=found)
