"""A stand-in for the engine's program: the same command line, socket and routes, without a model behind them.

The last message decides what happens, so that a test can have an engine that is slow, hangs or dies:

- `slow N` streams N tokens, one every 50 ms; `long N` answers N characters;
- `hang` never answers; `block` neither, and keeps the thread that works, so that no figures are given either;
- `work N` answers after N seconds in which it has done steps of its work;
- `die` ends the process by SIGABRT, `die late` in the middle of a stream, `die loudly` after it has printed all;
- `fail` gives an error of the engine, `refuse` one of its template, `compute` a failure;
- `think TEXT` reasons first, `cut TEXT` ends for its length; `call NAME` calls a function, `call two` calls two;
- `half NAME` ends in the middle of a call, `odd` streams what is no chat;
- anything else is answered with itself, backwards.

The routes for tokens and for ranking have answers of their own.
An embedding has eight numbers, by the words of the text; `short`, `zero`, `nan` and `drift` give what none should be.
Requests, and users who left, are written to `requests.jsonl` beside the socket.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
TIMINGS = {"cache_n": 1, "prompt_n": 2, "predicted_n": 5, "predicted_ms": 100.0, "predicted_per_token_ms": 20.0}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--model", "--alias", "--host", "--ctx-size", "--parallel"):
        parser.add_argument(name)
    options, _ = parser.parse_known_args()
    with open(options.model, "rb") as file:
        data = file.read()
    # A file that our own parser reads first has its mark at the end.
    head = data[-8:] if data[:4] == b"GGUF" else data[:8]
    del data
    if head == b"KILL ME!":
        os.kill(os.getpid(), signal.SIGKILL)
    if head == b"WRITE ME":
        with contextlib.suppress(OSError), open(options.model, "r+b") as file:
            file.write(b"changed")
    if head == b"OLD CPU!" and not os.path.exists("libggml-cpu-x64.so"):
        os.kill(os.getpid(), signal.SIGILL)
    if head == b"BAD HEAD":
        print("E error loading model: invalid magic", file=sys.stderr, flush=True)
        sys.exit(1)
    if head == b"NEW CPU!":
        os.kill(os.getpid(), signal.SIGILL)
    Handler.notes = Path(options.host).with_name("requests.jsonl")
    Handler.alias = options.alias
    Handler.note(
        {
            "argv": sys.argv[1:],
            "env": dict(os.environ),
            "cwd": os.getcwd(),
            "stack": resource.getrlimit(resource.RLIMIT_STACK)[0],
        }
    )
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    Server(options.host, Handler).serve_forever()


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


class Handler(BaseHTTPRequestHandler):
    notes = Path()
    alias = ""
    embedded = decoded = 0
    working = threading.Lock()
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "socket"

    def log_message(self, *_: object) -> None: ...

    @classmethod
    def note(cls, value: dict) -> None:
        with cls.notes.open("a") as file:
            file.write(json.dumps(value) + "\n")

    def do_GET(self) -> None:
        if self.path == "/metrics":
            with self.working:
                text = f"# TYPE llamacpp:n_decode_total counter\nllamacpp:n_decode_total {Handler.decoded}\n"
            self.reply_text(text)
            return
        # A model whose name has `tools` in it has a template that shows tools.
        self.reply(200, {"status": "ok", "chat_template_caps": {"supports_tools": "tools" in self.alias}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.note(
            {"path": self.path, "headers": {key.lower(): text for key, text in self.headers.items()}, "body": body}
        )
        if self.path == "/v1/embeddings":
            texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
            # A list of numbers is one text, as its tokens.
            texts = [" ".join(map(str, texts))] if texts and isinstance(texts[0], int) else texts
            rows = [{"index": at, "embedding": self.embedding(text)} for at, text in enumerate(texts)]
            self.reply(200, {"object": "list", "data": rows[::-1], "usage": {"prompt_tokens": 3, "total_tokens": 3}})
            return
        if self.path.endswith("/input_tokens"):
            self.reply(200, {"object": "response.input_tokens", "input_tokens": len(json.dumps(body["messages"]))})
            return
        if self.path in ("/tokenize", "/detokenize", "/v1/rerank"):
            self.reply(*self.words(body))
            return
        messages = body.get("messages") or [{"content": body.get("prompt") or body.get("input") or ""}]
        said = str(messages[-1].get("content", ""))
        if said.startswith("long "):
            said = "x" * int(said.split()[1])
        if said == "hang":
            self.hang()
        elif said == "block":
            with self.working:
                time.sleep(3600)
        elif said.startswith("work "):
            until = time.monotonic() + float(said.split()[1])
            while time.monotonic() < until:
                Handler.decoded += 1
                time.sleep(0.01)
            self.reply(200, self.answer({"message": {"role": "assistant", "content": "done"}, "finish_reason": "stop"}))
        elif said == "die":
            os.abort()
        elif said.startswith("die loudly"):
            # As llama.cpp ends: what it had in hand, then the place.
            print(f"E error initializing grammar sampler for grammar:\n{json.dumps(body)}\n{said}", file=sys.stderr)
            print(f"/src/ggml.c:1: GGML_ASSERT({said}) failed", file=sys.stderr, flush=True)
            os.abort()
        elif said == "fail":
            self.reply(400, {"error": {"code": 400, "message": "too long", "type": "exceed_context_size_error"}})
        elif said == "load":
            self.reply(503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}})
        elif said in ("refuse", "compute"):
            message = "Jinja Exception: no such role" if said == "refuse" else "Compute error."
            self.reply(500, {"error": {"code": 500, "message": message, "type": "server_error"}})
        elif body.get("stream"):
            self.stream(said, body.get("stream_options") or {})
        elif self.path == "/v1/completions":
            answer = self.answer({"text": said[::-1], "logprobs": None, "finish_reason": "stop"})
            self.reply(200, {**answer, "object": "text_completion"})
        else:
            self.reply(200, self.answer(whole_choice(*deltas(said))))

    def words(self, body: dict) -> tuple[int, dict]:
        """Each letter is a token; a document's score is how many of its words are in the query."""
        if self.path == "/tokenize":
            letters = [{"id": ord(one), "piece": one} for one in body["content"]]
            return 200, {"tokens": letters if body["with_pieces"] else [one["id"] for one in letters]}
        if self.path == "/detokenize":
            if max(body["tokens"], default=0) > 0x10FFFF:
                message = "vector::_M_range_check: __n (which is 9) >= this->size() (which is 8)"
                return 500, {"error": {"code": 500, "message": message, "type": "server_error"}}
            text = "".join(map(chr, body["tokens"]))
            return 200, {"content": text.encode("utf-8", "replace").decode()}
        if "hang" in body["documents"]:
            self.hang()
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        results = [
            {"index": at, "relevance_score": self.score(body["query"], text)}
            for at, text in enumerate(body["documents"])
        ]
        return 200, {"model": self.alias, "object": "list", "usage": usage, "results": results[::-1]}

    def score(self, query: str, document: str) -> float | None:
        return None if document == "nan" else float(sum(one in query.split() for one in document.split()))

    def embedding(self, said: str) -> list[float]:
        Handler.embedded += 1
        staged = {"short": [1.0] * 7, "zero": [0.0] * 8, "nan": [float("nan")] * 8, "drift": [1.0, self.embedded] * 4}
        row = staged.get(said, [0.0] * 8)
        for word in said.split() if said not in staged else ():
            row[sum(word.encode()) % 8] += 1.0
        return row

    def answer(self, choice: dict) -> dict:
        return {**self.head("chat.completion", choice), "usage": USAGE, "timings": TIMINGS}

    def head(self, kind: str, *choices: dict) -> dict:
        numbered = [{"index": 0, "finish_reason": None, **choice} for choice in choices]
        return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": self.alias, "choices": numbered}

    def stream(self, said: str, options: dict) -> None:
        pieces, finish = deltas(said)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        is_chat = self.path != "/v1/completions"
        kind = "chat.completion.chunk" if is_chat else "text_completion"
        empty: dict = {"delta": {}} if is_chat else {"text": "", "logprobs": None}
        last = [self.head(kind, {**empty, "finish_reason": finish})]
        if options.get("include_usage"):
            last.append({**self.head(kind), "usage": USAGE})
        last[-1]["timings"] = TIMINGS
        try:
            for delta in pieces:
                part = {"delta": delta} if is_chat else {"text": delta.get("content") or "", "logprobs": None}
                self.event(json.dumps(self.head(kind, part)))
                if said == "die late":
                    os.abort()
                if said == "stop early":
                    self.wfile.write(b"0\r\n\r\n")
                    return
                if said == "fail late":
                    self.event(
                        json.dumps({"error": {"code": 500, "message": "Compute error.", "type": "server_error"}})
                    )
                    self.wfile.write(b"0\r\n\r\n")
                    return
                time.sleep(0.05 if said.startswith("slow") else 0)
            for value in last:
                self.event(json.dumps(value))
            self.event("[DONE]")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.note({"left": said})

    def event(self, text: str) -> None:
        data = f"data: {text}\n\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def hang(self) -> None:
        if self.connection.recv(1) == b"":
            self.note({"left": "hang"})

    def reply_text(self, text: str) -> None:
        self.reply(200, text.encode(), "text/plain; version=0.0.4")

    def reply(self, status: int, value: object, media_type: str = "application/json; charset=utf-8") -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def deltas(said: str) -> tuple[list[dict], str]:
    """The pieces of an answer, and how it ends."""
    kind, _, rest = said.partition(" ")
    if kind == "slow":
        return [{"content": f"{number} "} for number in range(int(rest))], "stop"
    if kind == "think" and rest:
        return [
            {"role": "assistant", "content": None},
            *({"reasoning_content": one} for one in "hm"),
            *letters(rest),
        ], "stop"
    if kind == "cut" and rest:
        return letters(rest), "length"
    if kind == "call" and rest:
        names = ["first", "second"] if rest == "two" else [rest]
        return [piece for at, name in enumerate(names) for piece in call(at, name, '"x"}')], "tool_calls"
    if kind == "half" and rest:
        return call(0, rest, '"'), "length"
    if said == "odd":
        return [{"content": 5}], "stop"
    return letters(said), "stop"


def letters(text: str) -> list[dict]:
    size = 1 + len(text) // 1000  # what is long comes in larger pieces, or it would take minutes
    return [{"content": text[::-1][at : at + size]} for at in range(0, len(text), size)]


def call(at: int, name: str, rest: str) -> list[dict]:
    """A call of a function, in pieces."""
    head = {"index": at, "id": f"id{at}", "type": "function", "function": {"name": name, "arguments": ""}}
    more = [{"index": at, "function": {"arguments": text}} for text in ('{"city": ', rest)]
    return [{"tool_calls": [one]} for one in (head, *more)]


def whole_choice(pieces: list[dict], finish: str) -> dict:
    """The choice of an answer that is not streamed."""
    message: dict = {"role": "assistant", "content": "".join(str(one.get("content") or "") for one in pieces)}
    if thought := "".join(one.get("reasoning_content", "") for one in pieces):
        message["reasoning_content"] = thought
    found: list[dict] = []
    for one in (one["tool_calls"][0] for one in pieces if "tool_calls" in one):
        if "id" in one:
            found.append({name: value for name, value in one.items() if name != "index"})
        else:
            function = found[-1]["function"]
            found[-1]["function"] = {**function, "arguments": function["arguments"] + one["function"]["arguments"]}
    return {"message": {**message, "tool_calls": found} if found else message, "finish_reason": finish}


if __name__ == "__main__":
    main()
