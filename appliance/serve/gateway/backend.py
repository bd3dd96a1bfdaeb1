"""One served model as the gateway sees it: its engine, the queue in front of it, and the engine's state.

Owns what is shown of it: to clients, in the metrics, and in the digests that every answer names.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from appliance.events import ENGINE_RESTARTED, ENGINE_SILENT, Event, OnEvent, ignore
from appliance.host.engine.end_request import request_end
from appliance.host.engine.state import SERVING, STARTING, STOPPED, EngineState
from appliance.serve.gateway.messages import Plan, PlannedModel
from appliance.serve.listening.draining import Ending
from appliance.serve.listening.replies import not_serving, wrong_task
from appliance.serve.observation.metrics import EngineFigures
from appliance.serve.requests.paths import COUNT, EMBED, GENERATE
from appliance.serve.requests.refusal import Refusal
from appliance.serve.sharing.queue import RequestQueue
from appliance.serve.sharing.residence import Residence, Residents, Stay
from appliance.serve.sharing.watchdog import SilentWork, Watchdog
from appliance.serve.upstream.answer import parse_answer, read_whole
from appliance.serve.upstream.connection import LostError, Upstream

_log = logging.getLogger(__name__)


class Backend:
    """One served model.

    Args:
        plan: what the gateway serves.
        model: one of its models.
        ending: of the gateway.
        residents: the models of the gateway that share memory.
        on_event: gets what somebody may have to account for.
    """

    def __init__(
        self,
        plan: Plan,
        model: PlannedModel,
        ending: Ending,
        residents: Residents | None = None,
        on_event: OnEvent = ignore,
    ) -> None:
        self.model = model
        self.ending = ending
        self.queue = RequestQueue(model.slots, plan.limits)
        self.upstream = Upstream(model.socket)
        self.watchdog = Watchdog(self.upstream, plan.limits.silence, self._report_silence, self._end_engine)
        self._on_event = on_event
        self.state = EngineState(STARTING)
        self._held: dict[int, int] = {}
        self.residence: Residence | None = None
        if model.mark and residents is not None:
            self.residence = residents.add(model.name, Path(model.mark), model.keep_alive, model.memory, model.slots)
        self._plan = plan
        self._has_tools: bool | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def is_serving(self) -> bool:
        """Whether the engine answers from verified bytes."""
        return self.state.status == SERVING

    @property
    def is_available(self) -> bool:
        """Whether a request gets an answer: the engine serves, or is loaded for the request."""
        return self.is_serving or (self.residence is not None and self.state.status != STOPPED)

    @property
    def is_embedding(self) -> bool:
        """Whether the model makes embeddings, and nothing else."""
        return self.model.embedding > 0

    @property
    def task(self) -> str:
        """What the model does: one of the tasks of `appliance.serve.requests.paths`."""
        return self.model.task or (EMBED if self.is_embedding else GENERATE)

    def change_state(self, state: EngineState) -> None:
        """Take a new state; one that is stopped for good is logged, once."""
        if state.status == STOPPED != self.state.status:
            _log.error("the model %s was stopped: %s", self.name, state.reason)
        self.state = state
        if state.status != SERVING:
            self.queue.forget()
            self._held.clear()
        if self.residence is not None:
            self.residence.change_state(state.status)

    def _report_silence(self, work: SilentWork) -> None:
        _log.error("the engine of %s produced nothing for a request: %s, %s", self.name, work.route, work.size_class)
        fields = {"model": self.name, "route": work.route, "size_class": work.size_class}
        self._on_event(Event(ENGINE_SILENT, fields))

    def _end_engine(self) -> None:
        is_taken = request_end(Path(self.model.socket))
        _log.error("the engine of %s does not answer%s", self.name, ": it is ended" if is_taken else "")
        if is_taken:
            self._on_event(Event(ENGINE_RESTARTED, {"model": self.name}))

    async def enter(self, owner: str) -> Stay:
        """Wait until the model is loaded, and hold it until the stay ends.

        Args:
            owner: the account whose request it is.

        Raises:
            Refusal: 503; see `Residence.enter`.
        """
        return Stay() if self.residence is None else await self.residence.enter(owner)

    def refusal(self, task: str) -> Refusal | None:
        """Why it cannot answer a request; None where it can, now or when it is loaded.

        Args:
            task: of the request's route.
        """
        if task not in (COUNT, self.task):
            return wrong_task(self.name, self.task, task)
        return None if self.is_available else not_serving(self.name, self.state)

    async def has_tools(self) -> bool:
        """Whether the model's chat template shows tools to the model; the engine states it.

        Raises:
            LostError: the engine does not answer, or does not state it: one that is started again refuses everything.
        """
        if self._has_tools is None:
            async with self.upstream.request("/props") as reply:
                answer = await read_whole(reply)
            abilities = (parse_answer(answer) or {}).get("chat_template_caps")
            if not isinstance(abilities, dict):
                raise LostError("no abilities of a chat template")
            self._has_tools = abilities.get("supports_tools") is True
        return self._has_tools

    def hold_tokens(self, slot: int, tokens: int) -> None:
        """Note how many tokens a slot of the engine holds after an answer."""
        if self.task == GENERATE:
            self._held[slot] = min(tokens, self.model.context)

    def figures(self) -> EngineFigures:
        """What the metrics show of it."""
        state, queue = self.state, self.queue
        return EngineFigures(
            self.name,
            state.level,
            state.isolation,
            self.is_serving,
            queue.slots,
            queue.running,
            queue.waiting,
            state=state.status,
            is_incident=state.is_incident,
            cached=self._held,
            context=self.model.context,
        )

    def made_by(self) -> dict[str, str]:
        """The digests of what makes an answer now."""
        return {
            "release": self._plan.manifest,
            "model": self.model.sha256,
            "template": self.model.template,
            "engine": self._plan.engine,
            "policy": self._plan.policy,
            "level": self.state.level,
            "isolation": self.state.isolation,
        }

    def describe_model(self) -> dict[str, Any]:
        """An entry of the list of models, as OpenAI has it and with fields of our own."""
        return {
            "id": self.name,
            "object": "model",
            "created": 0,
            "owned_by": self._plan.release,
            "context": self.model.context,
            **self._describe_more(),
            "state": self.state.status,
            "appliance": self.made_by(),
        }

    def describe_engine(self) -> dict[str, Any]:
        """An entry of what `/readyz` shows."""
        level, isolation = self.state.level, self.state.isolation
        status = {"name": self.name, "state": self.state.status, "level": level, "isolation": isolation}
        return {**status, **self._describe_more()}

    def _describe_more(self) -> dict[str, Any]:
        fields = {"embedding": self.model.embedding, "task": self.model.task, "reason": self.state.reason}
        return {name: value for name, value in fields.items() if value}
