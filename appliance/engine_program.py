"""llama.cpp's server, the engine: its command line, its environment, and the reason in its output when it fails.

Owns what must be the same where a host serves a model and where the builder loads it once before it signs. It starts
nothing.

Rules:
- its environment is complete: no setting, proxy or path of the caller reaches it;
- every feature that reads files, runs tools, fetches or shows a page is off; `--alias` names the model that it serves;
- its memory is fixed at the start: `context` tokens for each of `slots` conversations, and no cache that grows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PROGRAM = "llama-server"

NO_DEBUGGER = {"GGML_NO_BACKTRACE": "1"}
"""Without it, a program of llama.cpp that aborts starts the machine's debugger, which prints the texts of users."""

MIN_STACK_BYTES, MAX_STACK_BYTES = 64 << 20, 1 << 30

_REFUSED = re.compile(r"error loading model: (?P<why>[^\r\n]*)")
_ABORTED = re.compile(
    r"(?P<why>(?:GGML_ASSERT|GGML_ABORT)\([^\r\n]*|terminate called [^\r\n]*(?:\n +what\(\)[^\r\n]*)?)"
)
_FAILED = re.compile(r"(?P<why>(?:failed to|unable to|cannot) (?:load|allocate|create)[^\r\n]*)")
_MAX_REASON = 300


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What one engine serves, and how.

    Args:
        model: the path of the GGUF, as the engine sees it.
        alias: the name of the model for users.
        socket: the path of the UNIX socket to listen on.
        context: tokens of one conversation.
        slots: conversations at the same time.
        threads: for computing.
        is_embedding: whether the model makes embeddings, and nothing else.
        is_ranking: whether the model sorts documents, and nothing else.
    """

    model: str
    alias: str
    socket: str
    context: int
    slots: int
    threads: int
    is_embedding: bool = False
    is_ranking: bool = False


def stack_bytes(context: int) -> int:
    """The stack that each thread of an engine needs.

    Many tokenizers split a text by `std::regex`, which walks a run of equal letters by recursion: half a KiB for each.
    With the usual 8 MiB, 20 000 equal signs end an engine.

    Args:
        context: tokens of one conversation; a text has at most 16 bytes for each.

    Returns:
        Bytes, which take memory only where they are used; at most `MAX_STACK_BYTES`.
    """
    return min(MAX_STACK_BYTES, max(MIN_STACK_BYTES, (16 << 20) + context * 16 * 512))


def engine_arguments(settings: EngineSettings) -> list[str]:
    """The arguments of `llama-server`, without the program itself."""
    slots = settings.slots
    return [
        *("--model", settings.model, "--alias", settings.alias),
        *("--host", settings.socket, "--offline", "--no-ui", "--no-slots", "--no-agent", "--metrics"),
        # The context is divided among the slots: one that they share could be filled by a single conversation.
        *("--ctx-size", str(settings.context * slots), "--parallel", str(slots), "--no-kv-unified"),
        # The model is in memory already, so a warm-up would only cost a slow machine one more evaluation.
        *("--cache-ram", "0", "--no-cache-idle-slots", "--fit", "off", "--no-warmup"),
        # Idle threads sleep instead of polling, which would take the processor from threads with work.
        *("--threads", str(settings.threads), "--poll", "0", "--threads-http", str(slots + 4), "--timeout", "600"),
        *("--jinja", "--no-context-shift", "--cors-origins", "localhost", "--no-cors-credentials"),
        *(["--embeddings"] if settings.is_embedding else []),
        *(["--reranking"] if settings.is_ranking else []),
        *("--log-colors", "off", "--log-verbosity", "2", "--log-timestamps", "--log-prefix"),
    ]


def engine_environment(cache: str) -> dict[str, str]:
    """The whole environment of an engine.

    Args:
        cache: a folder that it may write to; it has no use for one.
    """
    return {"HOME": "/nonexistent", "LLAMA_CACHE": cache, "LC_ALL": "C.UTF-8", **NO_DEBUGGER}


def refusal_reason(output: str) -> str:
    """The reason why a program of llama.cpp did not load a model, in its own words; empty where it states none.

    Args:
        output: untrusted, of a program that ended before it served anybody: it holds no text of a user.
    """
    for pattern in (_REFUSED, _ABORTED, _FAILED):
        if found := [match["why"] for match in pattern.finditer(output)]:
            return " ".join(found[-1].split())[:_MAX_REASON]
    return ""
