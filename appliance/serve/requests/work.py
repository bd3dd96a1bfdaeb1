"""A request as the work that it makes: one body for the engine for each answer.

Owns the split of a request into pieces. The queue of an engine counts pieces: a hundred texts in one request wait their
turn one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from appliance.serve.requests.chat import ChatRequest
from appliance.serve.requests.completion import CompletionRequest
from appliance.serve.requests.engine_chat import engine_chat
from appliance.serve.requests.fields import GenerationRequest, first_refusal
from appliance.serve.requests.json_text import to_json
from appliance.serve.requests.paths import CHAT, COMPLETIONS, DETOKENIZE, EMBEDDINGS, RERANKINGS, TOKENIZE
from appliance.serve.requests.refusal import refused_field
from appliance.serve.requests.texts import DetokenizeRequest, EmbeddingRequest, RerankRequest, TokenizeRequest

CountRequest = TokenizeRequest | DetokenizeRequest
ParsedRequest = ChatRequest | CompletionRequest | EmbeddingRequest | RerankRequest | CountRequest
MODELS: dict[str, type[ParsedRequest]] = {
    CHAT: ChatRequest,
    COMPLETIONS: CompletionRequest,
    EMBEDDINGS: EmbeddingRequest,
    RERANKINGS: RerankRequest,
    TOKENIZE: TokenizeRequest,
    DETOKENIZE: DetokenizeRequest,
}
BYTES_PER_TOKEN = 16
"""More than any tokenizer's average over a long text. What has more bytes than that for each token cannot fit, and is
refused before an engine spends time on counting."""
_USUAL_BYTES_PER_TOKEN = 4
_USUAL_ANSWER_TOKENS = 512
_GRAMMAR_FIELDS = ("response_format", "tools", "json_schema", "grammar")
_SIZES = ((1 << 10, "up to 1 KiB"), (16 << 10, "up to 16 KiB"), (128 << 10, "up to 128 KiB"), (1 << 20, "up to 1 MiB"))


@dataclass(frozen=True, slots=True)
class Ranking:
    """How the answer with sorted documents is written.

    Args:
        top_n: how many of the best documents it has.
        documents: the texts, to be shown beside their scores; empty to show none.
    """

    top_n: int
    documents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Work:
    """What an engine has to do for one request.

    Args:
        path: of the engine's route.
        bodies: JSON, one for each answer, in the order of the answers.
        is_stream: whether the user asked for a stream.
        has_usage: whether the stream ends with the count of tokens.
        forced: see `EngineChat`.
        answers: answers for each prompt, which is counted once.
        answer_tokens: the most tokens of one answer, or a guess where the request states none; 0 where none is written.
        grammar_bytes: of the schemas and tools of which the engine makes a grammar.
        has_logprobs: whether the answers hold the probabilities of their tokens.
        ranking: of a request that sorts documents, how its answer is written.
    """

    path: str
    bodies: tuple[bytes, ...]
    is_stream: bool = False
    has_usage: bool = False
    forced: str | None = None
    answers: int = 1
    answer_tokens: int = 0
    grammar_bytes: int = 0
    has_logprobs: bool = False
    ranking: Ranking | None = None

    def cost(self, piece: int) -> int:
        """Estimated tokens of a piece, its prompt and its answer; from 1. It decides about the order of service."""
        return 1 + len(self.bodies[piece]) // _USUAL_BYTES_PER_TOKEN + self.answer_tokens

    def size_class(self, piece: int) -> str:
        """The size of a piece in words, for a report that may hold nothing of its text."""
        sizes = {"body": len(self.bodies[piece]), "grammar": self.grammar_bytes}
        return ", ".join(f"{name} {_size_word(size)}" for name, size in sizes.items())

    @property
    def has_slot_fields(self) -> bool:
        """Whether the engine's route takes the number of a slot, and reuses what the slot holds."""
        return self.path in (CHAT, COMPLETIONS)


def parse_request(path: str, body: dict[str, Any]) -> ParsedRequest:
    """Check the fields of a request.

    Args:
        path: of its route, one of `MODELS`.
        body: untrusted.

    Raises:
        Refusal: a field is unknown, not supported, missing, or not of its type and range.
    """
    try:
        return MODELS[path].model_validate(body)
    except ValidationError as error:
        raise first_refusal(error, body) from None


def check_length(request: ParsedRequest, context: int) -> None:
    """Refuse texts that cannot fit into a model's context.

    Args:
        request: checked.
        context: tokens of one conversation.

    Raises:
        Refusal: a text has more tokens, or more bytes than so many tokens can have.
    """
    if isinstance(request, ChatRequest):
        if _size_bytes(request.model_dump(include={"messages", "tools"})) > context * BYTES_PER_TOKEN:
            raise _too_long("messages", context)
        return
    field, texts, beside = _texts(request)
    # The template of a model that ranks gets the query first, and then the document in each place that names it.
    copies = 1 + beside.count("{document}")
    for at, text in enumerate(texts):
        if _units(text) * copies + _units(beside) > context:
            raise _too_long(f"{field}[{at}]" if len(texts) > 1 else field, context)


def _texts(request: ParsedRequest) -> tuple[str, Sequence[str | list[int]], str]:
    """The field with the texts of a request, these, and what the engine reads with each of them."""
    if isinstance(request, CompletionRequest):
        return "prompt", request.prompts(), ""
    if isinstance(request, EmbeddingRequest):
        return "input", request.texts(), ""
    if isinstance(request, RerankRequest):
        return "documents", request.texts(), request.query
    return ("content", [request.content], "") if isinstance(request, TokenizeRequest) else ("tokens", [], "")


def _units(text: str | list[int]) -> float:
    return len(text) if isinstance(text, list) else len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN


def plan_work(request: ParsedRequest, *, has_tools: bool = False) -> Work:
    """Split a request into pieces.

    Args:
        request: checked, and short enough.
        has_tools: whether the template of the model knows tools.

    Raises:
        Refusal: parts of the request contradict each other, or the model cannot honour one.
    """
    if isinstance(request, EmbeddingRequest):
        same = {"model": request.model, "encoding_format": request.encoding_format}
        return Work(EMBEDDINGS, tuple(to_json({"input": text, **same}) for text in request.texts()))
    if isinstance(request, RerankRequest):
        texts = request.texts()
        ranking = Ranking(request.top_n or len(texts), tuple(texts) if request.return_documents else ())
        return Work(RERANKINGS, tuple(map(to_json, request.engine_bodies())), ranking=ranking)
    if isinstance(request, TokenizeRequest | DetokenizeRequest):
        path = TOKENIZE if isinstance(request, TokenizeRequest) else DETOKENIZE
        return Work(path, (to_json(request.engine_body()),))
    if isinstance(request, CompletionRequest):
        common: dict[str, Any] = {"model": request.model, **request.sampling()}
        if request.logprobs is not None:
            common["logprobs"] = request.logprobs or 1  # with 0, an engine leaves out the chosen ones, too
        bodies = [{"prompt": prompt, **common} for prompt in request.prompts()]
        return _with_answers(Work(COMPLETIONS, ()), request, bodies)
    chat = engine_chat(request, has_tools=has_tools)
    return _with_answers(Work(CHAT, (), forced=chat.forced), request, [chat.body])


def _with_answers(work: Work, request: GenerationRequest, bodies: list[dict[str, Any]]) -> Work:
    if work.forced is not None:
        # Only the whole answer is a call.
        bodies = [{name: value for name, value in body.items() if not name.startswith("stream")} for body in bodies]
    pieces = [_vary(body, number) for body in bodies for number in range(request.n)]
    options = request.stream_options
    return replace(
        work,
        bodies=tuple(map(to_json, pieces)),
        is_stream=request.stream,
        has_usage=bool(options and options.include_usage),
        answers=request.n,
        answer_tokens=_answer_tokens(request),
        has_logprobs="logprobs" in bodies[0],
        grammar_bytes=sum(len(to_json(bodies[0][name])) for name in _GRAMMAR_FIELDS if name in bodies[0]),
    )


def _size_word(size_bytes: int) -> str:
    return "none" if not size_bytes else next((word for most, word in _SIZES if size_bytes <= most), "over 1 MiB")


def _answer_tokens(request: GenerationRequest) -> int:
    stated = getattr(request, "max_completion_tokens", None) or request.max_tokens
    return _USUAL_ANSWER_TOKENS if stated is None else stated


def _vary(body: dict[str, Any], number: int) -> dict[str, Any]:
    """The body for one of several answers: with one seed, all would be the same."""
    return {**body, "seed": (body["seed"] + number) % ((1 << 32) - 1)} if number and "seed" in body else body


def _size_bytes(value: object) -> int:
    """Bytes of all texts in a part of a request."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace"))
    if isinstance(value, list):
        return sum(map(_size_bytes, value))
    if isinstance(value, dict):
        return sum(_size_bytes(key) + _size_bytes(one) for key, one in value.items())
    return 0


def _too_long(field: str, context: int) -> Exception:
    message = f"The field {field!r} cannot fit: this model's context has {context} tokens."
    return refused_field("context_length_exceeded", field, message)
