"""The gateway's routes: which path means what, and who may take it.

Owns the web application. It decides who asks and which engine is asked; the asking itself is `relay`'s.

Rules (threat T37):
- every route under `/v1` needs a key; a key sees only its own models;
- a model that is not served is a 404, never another model; one that embeds is not asked to chat, nor the reverse;
- nothing is served from disk but the one page, and no reply allows another site's page to read it;
- `/readyz` is 200 only when at least one verified engine serves.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from appliance.host.site.api_keys import AccessStore, Key
from appliance.serve.gateway.messages import RESTARTING, SERVING, News, Plan, PlannedModel
from appliance.serve.gateway.metrics import EngineFigures, Metrics
from appliance.serve.gateway.page import PAGE, POLICY
from appliance.serve.gateway.queue import Lane
from appliance.serve.gateway.relay import Relay
from appliance.serve.gateway.replies import (
    HARDENING,
    Refusal,
    forbidden,
    json_reply,
    not_serving,
    unauthorized,
    unknown_model,
    wrong_task,
)
from appliance.serve.gateway.request_limits import read_question
from appliance.serve.gateway.upstream import Upstream

EMBEDDINGS = "/v1/embeddings"
ASKED = ("/v1/chat/completions", "/v1/completions", EMBEDDINGS)
"""Routes that are passed on to an engine under the same path."""

Clock = Callable[[], datetime]


class Backend:
    """One served model as the gateway sees it: its engine, the line before it, and what the supervisor said last."""

    def __init__(self, model: PlannedModel) -> None:
        self.model = model
        self.lane = Lane(model.slots)
        self.upstream = Upstream(model.socket)
        self.news = News(model.name, RESTARTING)

    def figures(self) -> EngineFigures:
        """What the metrics show of it."""
        news, lane = self.news, self.lane
        is_serving = news.state == SERVING
        return EngineFigures(
            self.model.name, news.level, news.isolation, is_serving, lane.slots, lane.running, lane.waiting
        )

    def refusal(self, route: str) -> Refusal | None:
        """Why it cannot answer a request to a route now; None where it can."""
        is_embedding = self.model.embedding > 0
        if is_embedding != (route == EMBEDDINGS):
            return wrong_task(self.model.name, is_embedding=is_embedding)
        if self.news.state != SERVING:
            return not_serving(self.model.name, self.news.state, self.news.reason)
        return None


class Gateway:
    """What the routes work on.

    Args:
        plan: from the supervisor.
        access: the keys.
        now: the clock, in UTC, for keys that expire.
    """

    def __init__(self, plan: Plan, access: AccessStore, now: Clock) -> None:
        self.plan = plan
        self.metrics = Metrics(lambda: [backend.figures() for backend in self._backends.values()])
        self._access = access
        self._now = now
        self._backends = {model.name: Backend(model) for model in plan.models}

    def hear(self, news: News) -> None:
        """Take news from the supervisor."""
        self._backends[news.model].news = news

    def application(self, lifespan: Lifespan[Starlette] | None = None) -> ASGIApp:
        """The web application.

        Args:
            lifespan: what runs beside it; see Starlette.
        """
        routes = [
            Route("/", self._page),
            Route("/livez", self._alive),
            Route("/readyz", self._ready),
            Route("/metrics", self._figures),
            Route("/v1/models", self._models),
            Route("/v1/models/{name:path}", self._one_model),
            *(Route(path, self._ask, methods=["POST"]) for path in ASKED),
        ]
        handlers = {Refusal: _refused, HTTPException: _no_such_route, Exception: _failed}
        application = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)  # type: ignore[arg-type]
        application.router.redirect_slashes = False
        stamp = {**HARDENING, "appliance-release": self.plan.manifest, "appliance-policy": self.plan.policy}
        return Stamp(application, stamp)

    async def _ask(self, request: Request) -> Response:
        key = self._who(request)
        question = await read_question(request)
        backend = self._backend(key, question.model)
        route = request.url.path
        refusal = backend.refusal(route)
        if refusal is not None:
            self.metrics.count_request(question.model, route, refusal.status)
            raise refusal
        return Relay(backend.upstream, backend.lane, route, question, self._made_by(backend), self.metrics)

    async def _models(self, request: Request) -> Response:
        key = self._who(request)
        return json_reply({"object": "list", "data": [self._describe(backend) for backend in self._allowed(key)]})

    async def _one_model(self, request: Request) -> Response:
        return json_reply(self._describe(self._backend(self._who(request), request.path_params["name"])))

    async def _page(self, _request: Request) -> Response:
        return Response(PAGE, media_type="text/html", headers={"content-security-policy": POLICY})

    async def _alive(self, _request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def _ready(self, _request: Request) -> Response:
        backends = self._backends.values()
        is_ready = any(backend.news.state == SERVING for backend in backends)
        models = [
            {
                "name": backend.model.name,
                "state": backend.news.state,
                "level": backend.news.level,
                "isolation": backend.news.isolation,
                **_embedding(backend),
            }
            for backend in backends
        ]
        status = {"ready": is_ready, "release": self.plan.release, "manifest": self.plan.manifest, "models": models}
        return json_reply(status, 200 if is_ready else 503)

    async def _figures(self, _request: Request) -> Response:
        return Response(self.metrics.format(), media_type="text/plain; version=0.0.4")

    def _who(self, request: Request) -> Key:
        scheme, _, presented = request.headers.get("authorization", "").partition(" ")
        key = self._access.check(presented.strip(), self._now()) if scheme.lower() == "bearer" else None
        if key is None:
            self.metrics.count_refused_key()
            raise unauthorized()
        return key

    def _allowed(self, key: Key) -> list[Backend]:
        return [backend for name, backend in self._backends.items() if key.may_use(name)]

    def _backend(self, key: Key, model: str) -> Backend:
        backend = self._backends.get(model)
        if backend is None:
            raise unknown_model(model, [found.model.name for found in self._allowed(key)])
        if not key.may_use(model):
            raise forbidden(model)
        return backend

    def _made_by(self, backend: Backend) -> dict[str, str]:
        return {
            "release": self.plan.manifest,
            "model": backend.model.sha256,
            "template": backend.model.template,
            "engine": self.plan.engine,
            "policy": self.plan.policy,
            "level": backend.news.level,
            "isolation": backend.news.isolation,
        }

    def _describe(self, backend: Backend) -> dict[str, object]:
        return {
            "id": backend.model.name,
            "object": "model",
            "created": 0,
            "owned_by": self.plan.release,
            "context": backend.model.context,
            **_embedding(backend),
            "state": backend.news.state,
            "appliance": self._made_by(backend),
        }


def _embedding(backend: Backend) -> dict[str, object]:
    return {"embedding": backend.model.embedding} if backend.model.embedding else {}


class Stamp:
    """Puts the headers of every reply on every reply, whoever made it.

    Args:
        application: what is wrapped.
        headers: added where the reply does not have them.
    """

    def __init__(self, application: ASGIApp, headers: dict[str, str]) -> None:
        self._application = application
        self._headers = [(name.encode(), text.encode()) for name, text in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                message["headers"] = given + [pair for pair in self._headers if pair[0] not in names]
            await send(message)

        await self._application(scope, receive, stamped if scope["type"] == "http" else send)


async def _refused(_request: Request, refusal: Refusal) -> Response:
    return refusal.response()


async def _no_such_route(request: Request, error: HTTPException) -> Response:
    texts = {404: f"There is nothing at {request.url.path[:200]}.", 405: "This path takes another method."}
    codes = {404: "route_not_found", 405: "method_not_allowed"}
    message = texts.get(error.status_code, error.detail)
    return Refusal(
        error.status_code, codes.get(error.status_code, "refused"), message, headers=error.headers
    ).response()


async def _failed(_request: Request, _error: Exception) -> Response:
    return Refusal(500, "internal_error", "The gateway failed; its log says why.").response()
