"""Users who ask at the same time and read their answers as streams, in a process of their own.

Owns the load, and what each user saw: when the first token came, when the last, and how many there were. It speaks
HTTP/1.1 by itself. So the load is the same for a gateway, an engine and a peer.

Command line of the child: `python -m tests.bench.load TARGET USERS TOKENS MODEL FIRST [KEY]`, where TARGET is
`HOST:PORT` or the absolute path of a socket, and FIRST the number of the first user. It prints one JSON value.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from tests.bench.figure import TOP

_HEAD = (
    "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nconnection: close\r\ncontent-type: application/json\r\n"
    "content-length: {}\r\n{}\r\n"
)
_PROMPT = "{} is the number of a keeper. Tell a very long story about the lighthouse that this keeper never leaves."
"""The number comes first, and is another one each time: no side may reuse what it has read before."""

_numbers = itertools.count(1000, 1000)


@dataclass(frozen=True)
class Answer:
    """What one user saw.

    Args:
        status: of HTTP; 0 where the connection broke.
        first_s: from the question to the first piece of text; 0 where none came.
        total_s: to the end of the answer.
        tokens: that the answer counts.
        is_complete: whether the stream ended as it must.
        has_retry_after: whether a refusal shows when to come again.
    """

    status: int
    first_s: float
    total_s: float
    tokens: int
    is_complete: bool
    has_retry_after: bool = False


@dataclass(frozen=True)
class Load:
    """What all users saw, and the seconds from the first question to the last answer."""

    answers: tuple[Answer, ...]
    wall_s: float

    @property
    def complete(self) -> list[Answer]:
        """The answers that came whole."""
        return [answer for answer in self.answers if answer.is_complete]

    @property
    def s_per_token(self) -> float:
        """Seconds for each token of all answers together."""
        return self.wall_s / sum(answer.tokens for answer in self.complete)

    @property
    def first_s(self) -> float:
        """Half of all users had their first token by then."""
        return median(answer.first_s for answer in self.complete)

    @property
    def failed(self) -> int:
        """Users who got neither a whole answer nor a refusal that shows when to come again."""
        return sum(
            not answer.is_complete and not (answer.status == 429 and answer.has_retry_after) for answer in self.answers
        )


def ask_all(target: str, users: int, tokens: int, model: str, key: str = "") -> Load:
    """Let users ask at the same time, each once.

    Args:
        target: `HOST:PORT`, or the absolute path of a UNIX socket.
        users: how many.
        tokens: of each answer, at most.
        model: whom they ask.
        key: an API key; none where the target wants none.
    """
    words = [target, str(users), str(tokens), model, str(next(_numbers)), *([key] if key else [])]
    command = [sys.executable, "-m", "tests.bench.load", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=TOP, check=False)
    if done.returncode:
        raise SystemExit(f"bench: the load ended with {done.returncode}\n{done.stderr[-2000:]}")
    value = json.loads(done.stdout)
    return Load(tuple(Answer(**answer) for answer in value["answers"]), value["wall_s"])


async def _ask(target: str, tokens: int, model: str, key: str, number: int) -> Answer:
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": _PROMPT.format(number)}],
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    authorization = f"authorization: Bearer {key}\r\n" if key else ""
    began = time.perf_counter()
    try:
        host, _, port = target.rpartition(":")
        opening = asyncio.open_unix_connection(target) if target[0] == "/" else asyncio.open_connection(host, int(port))
        reader, writer = await opening
        writer.write(_HEAD.format(len(body), authorization).encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split()[1])
        first_s, count, is_complete = 0.0, 0, False
        async for line in reader:
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                is_complete = True
                continue
            event = json.loads(line[6:])
            first_s = first_s or (_text(event) and time.perf_counter() - began) or 0.0
            count = (event.get("usage") or {}).get("completion_tokens", count + bool(_text(event)))
        writer.close()
    except (OSError, asyncio.IncompleteReadError, ValueError):
        return Answer(0, 0.0, time.perf_counter() - began, 0, False)
    total_s = time.perf_counter() - began
    return Answer(status, first_s, total_s, count, is_complete and status == 200, "\nretry-after:" in head)


def _text(event: dict[str, Any]) -> str:
    choices = event.get("choices") or [{}]
    return (choices[0].get("delta") or {}).get("content") or ""


async def _ask_all(target: str, numbers: range, tokens: int, model: str, key: str) -> Load:
    began = time.perf_counter()
    answers = await asyncio.gather(*(_ask(target, tokens, model, key, number) for number in numbers))
    return Load(tuple(answers), time.perf_counter() - began)


def main(target: str, users: str, tokens: str, model: str, first: str, key: str = "") -> int:
    """The child: as in the module's docstring."""
    numbers = range(int(first), int(first) + int(users))
    load = asyncio.run(_ask_all(target, numbers, int(tokens), model, key))
    json.dump({"answers": [asdict(answer) for answer in load.answers], "wall_s": load.wall_s}, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
