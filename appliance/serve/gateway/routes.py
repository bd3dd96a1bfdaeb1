"""The gateway's routes: which path means what, and who may use it.

Owns the web application. It decides whose request it is and which engine gets it; `relay` passes it on.

Rules (threat T37):
- every route that reaches a model needs a key; a key sees only its own models;
- a model that is not served is a 404, never another model; one that embeds gets no request to chat, nor the reverse;
- nothing is served from disk but the pages and the dashboard; only pages of the site's own list of origins may read it;
- `/readyz` is 200 only when at least one verified engine serves, or is loaded for the request that needs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from appliance.events import OnEvent, ignore
from appliance.host.site.api_keys import AccessStore
from appliance.serve.callers.accounting import Refusals
from appliance.serve.callers.authentication import authenticate
from appliance.serve.callers.books import Books
from appliance.serve.callers.caller import Caller, role_forbidden
from appliance.serve.callers.usage_metrics import UsageCollector
from appliance.serve.callers.usage_reply import ALL, OWN, all_usage, own_usage
from appliance.serve.gateway.backend import Backend
from appliance.serve.gateway.messages import EngineEvent, Plan
from appliance.serve.listening.body_room import BodyRoom
from appliance.serve.listening.client_certificates import ClientCertificates
from appliance.serve.listening.draining import Ending
from appliance.serve.listening.leaving import while_there
from appliance.serve.listening.origins import AllowedOrigins
from appliance.serve.listening.other_routes import missing_route
from appliance.serve.listening.replies import (
    HARDENING,
    forbidden,
    json_reply,
    refusal_response,
    unauthorized,
    unknown_model,
)
from appliance.serve.listening.request_target import OriginForm
from appliance.serve.observation.metrics import Metrics
from appliance.serve.observation.page import DASHBOARD, PAGES, page_headers
from appliance.serve.requests.body import read_body
from appliance.serve.requests.paths import ANTHROPIC, ROUTES, dialect_of
from appliance.serve.requests.refusal import Refusal
from appliance.serve.requests.request_id import REQUEST_ID, begin_request
from appliance.serve.sharing.residence import Residents

Clock = Callable[[], datetime]
Admit = Callable[[str, bytes, Caller, Callable[[str], Backend], Metrics], Coroutine[Any, Any, Response]]


class Gateway:
    """What the routes work on.

    Args:
        plan: from the supervisor.
        access: the keys.
        now: the clock, in UTC, for keys that expire.
        on_event: gets what somebody may have to account for.
        usage: where the usage of each key is written; None for memory alone.
    """

    def __init__(
        self, plan: Plan, access: AccessStore, now: Clock, on_event: OnEvent = ignore, usage: Path | None = None
    ) -> None:
        self.plan = plan
        self.books = Books(now, usage, on_event)
        self.metrics = Metrics(lambda: [backend.figures() for backend in self._backends.values()])
        self._access = access
        self._now = now
        self.report = on_event
        self._refusals = Refusals(on_event)
        self.metrics.register(UsageCollector(self.books.usage))
        self._bodies = BodyRoom()
        self._admit: Admit | None = None
        self.ending = Ending()
        self.residents = Residents(plan.room, is_ending=lambda: self.ending.is_near)
        self._backends = {
            model.name: Backend(plan, model, self.ending, self.residents, on_event) for model in plan.models
        }

    def on_event(self, event: EngineEvent) -> None:
        """Take a new state of an engine."""
        self._backends[event.model].change_state(event.state)

    def application(self, lifespan: Lifespan[Starlette] | None = None) -> ASGIApp:
        """The web application.

        Args:
            lifespan: what runs beside it; see Starlette.
        """
        routes = [
            *(Route(path, self._page) for path in PAGES),
            Route("/dashboard.json", self._dashboard),
            *(Route(path, self._alive) for path in ("/livez", "/health")),
            Route("/readyz", self._ready),
            Route("/metrics", self._format_metrics),
            Route("/openapi.json", self._describe_api),
            Route("/v1/models", self._list_models),
            Route("/v1/models/{name:path}", self._describe_model),
            Route(OWN, self._own_usage),
            Route(ALL, self._all_usage),
            *(Route(path, self._relay, methods=["POST"]) for path in ROUTES),
        ]
        handlers = {Refusal: self._refused, HTTPException: self._no_such_route, Exception: self._failed}
        running = self._running(lifespan)
        application = Starlette(routes=routes, exception_handlers=handlers, lifespan=running)  # type: ignore[arg-type]
        application.router.redirect_slashes = False
        headers = {**HARDENING, "appliance-release": self.plan.manifest, "appliance-policy": self.plan.policy}
        known = ClientCertificates(OriginForm(application), required=bool(self.plan.tls and self.plan.tls.client_ca))
        # A browser asks whether a page may send a request, and shows no certificate for that.
        return CommonHeaders(AllowedOrigins(known, self.plan.cors), headers, self.ending)

    def _running(self, inner: Lifespan[Starlette] | None) -> Lifespan[Starlette]:
        @asynccontextmanager
        async def lifespan(application: Starlette) -> AsyncIterator[None]:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self.books.running(self._access))
                if inner is not None:
                    await stack.enter_async_context(inner(application))
                loading = asyncio.create_task(self._load())
                stack.callback(loading.cancel)
                residing = asyncio.create_task(self.residents.watch())
                stack.callback(residing.cancel)
                yield

        return lifespan

    async def _relay(self, request: Request) -> Response:
        caller, path = self._authenticate(request), request.scope["path"]
        with self._bodies.hold(caller.account) as take:
            body = await read_body(request, take)
            admit = self._admit or await self._load()
            admitted = admit(path, body, caller, lambda model: self._find(caller, model), self.metrics)
            return await while_there(asyncio.create_task(admitted), request.receive)

    async def _load(self) -> Admit:
        """Load what checks requests, in a thread: others are answered meanwhile."""
        self._admit = await asyncio.to_thread(_import_admission)
        return self._admit

    async def _list_models(self, request: Request) -> Response:
        allowed = self._allowed(self._authenticate(request))
        return json_reply({"object": "list", "data": [backend.describe_model() for backend in allowed]})

    async def _describe_model(self, request: Request) -> Response:
        caller, name = self._authenticate(request), request.path_params["name"]
        return json_reply(self._see(caller, name).describe_model())

    async def _own_usage(self, request: Request) -> Response:
        return json_reply(await own_usage(self._authenticate(request), self._now().date()))

    async def _all_usage(self, request: Request) -> Response:
        return json_reply(await all_usage(self._authenticate(request), self._now().date()))

    async def _page(self, request: Request) -> Response:
        path = request.scope["path"]
        return Response(PAGES[path], media_type="text/html", headers=page_headers(path))

    async def _dashboard(self, _request: Request) -> Response:
        return Response(DASHBOARD, media_type="application/json")

    async def _describe_api(self, _request: Request) -> Response:
        return Response(await asyncio.to_thread(_import_description), media_type="application/json")

    async def _alive(self, _request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def _ready(self, _request: Request) -> Response:
        backends = self._backends.values()
        is_ready = any(backend.is_available for backend in backends)
        models = [backend.describe_engine() for backend in backends]
        status = {"ready": is_ready, "release": self.plan.release, "manifest": self.plan.manifest, "models": models}
        return json_reply(status, 200 if is_ready else 503)

    async def _format_metrics(self, _request: Request) -> Response:
        return Response(self.metrics.format(), media_type="text/plain; version=0.0.4")

    def _authenticate(self, request: Request) -> Caller:
        caller = authenticate(request, self._access, self.books, self._now())
        if caller is None:
            self.metrics.count_refused_key()
            raise unauthorized()
        request.state.caller = caller
        return caller

    async def _refused(self, request: Request, refusal: Refusal) -> Response:
        self.metrics.count_refusal(refusal.code)
        caller, path = getattr(request.state, "caller", None), request.scope["path"]
        self._refusals.report(caller, path, refusal.status, refusal.code)
        return refusal_response(refusal, dialect_of(request.scope["path"]))

    async def _no_such_route(self, request: Request, error: HTTPException) -> Response:
        return await self._refused(request, _no_such_route(request, error))

    async def _failed(self, request: Request, _error: Exception) -> Response:
        return await self._refused(request, Refusal(500, "internal_error", "The gateway failed; see its log."))

    def _allowed(self, caller: Caller) -> list[Backend]:
        return [backend for name, backend in self._backends.items() if caller.key.may_see(name)]

    def _find(self, caller: Caller, model: str) -> Backend:
        backend = self._see(caller, model)
        if not caller.key.may_use(model):
            raise role_forbidden()
        return backend

    def _see(self, caller: Caller, model: str) -> Backend:
        backend = self._backends.get(model)
        if backend is None:
            raise unknown_model(model, [found.name for found in self._allowed(caller)])
        if not caller.key.may_see(model):
            raise forbidden(model)
        return backend


class CommonHeaders:
    """Adds the headers of every reply to every reply, whatever made it; one of them is the request's identifier.

    Args:
        application: what is wrapped.
        headers: added where the reply does not have them.
        ending: when the end is near, each reply closes its connection.
    """

    def __init__(self, application: ASGIApp, headers: dict[str, str], ending: Ending) -> None:
        self._application, self._ending = application, ending
        self._headers = [(name.encode(), text.encode()) for name, text in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        request_id = begin_request(scope["headers"])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                message["headers"] = given + [pair for pair in self._headers if pair[0] not in names]
                named = (REQUEST_ID, "request-id") if dialect_of(scope["path"]) == ANTHROPIC else (REQUEST_ID,)
                message["headers"] += [(name.encode(), request_id.encode()) for name in named]
                if self._ending.is_near:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        await self._application(scope, receive, send_with_headers)


def _import_description() -> bytes:
    from appliance.serve.gateway.description import description  # noqa: PLC0415 - as with admission

    return description()


def _import_admission() -> Admit:
    from appliance.serve.gateway.admission import admit  # noqa: PLC0415 - see there: it would delay the start

    return admit


def _no_such_route(request: Request, error: HTTPException) -> Refusal:
    if error.status_code == 404:
        return missing_route(request.scope["path"])
    if error.status_code == 405:
        return Refusal(405, "method_not_allowed", "This path takes another method.", headers=error.headers)
    return Refusal(error.status_code, "refused", error.detail, headers=error.headers)
