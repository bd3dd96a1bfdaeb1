"""The new release's engines, started beside whatever serves, and asked before the switch.

Owns the golden prompts and the judgement of the answers (of embeddings: `appliance.host.engine.embedding_check`), and
the engines
that this program itself starts for it, where no systemd does. Each engine runs as it will serve: from the rendered
configuration, with the variant that passed the trial, on the verified model, without any network.

An answer is accepted by a regular expression, since greedy text differs between CPU variants.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.host.engine.client import EngineClient
from appliance.host.engine.command import EngineSpec
from appliance.host.engine.embedding_check import judge_embeddings
from appliance.host.engine.process import Engine, start_engine
from appliance.host.machine.threads import thread_count
from appliance.host.process.programs import Programs
from appliance.host.release.release import Release
from bundles.contents.model import Model
from bundles.progress import OnProgress, Progress
from signing.errors import ApplianceError, ApplyRestoredError


@dataclass(frozen=True, slots=True)
class GoldenPrompt:
    """A question, where its answer is cut, and a regular expression that must be found in the answer."""

    prompt: str
    max_tokens: int
    accept: str


# A few tokens: that it answers at all is looked at here, and emulated processors make one or two tokens a second.
DEFAULT = GoldenPrompt("Name the capital of France.", 8, ".+")


def try_candidate(release: Release, programs: Programs, on_progress: OnProgress, golden: GoldenPrompt = DEFAULT) -> str:
    """Start each engine of a release, ask it, and stop it.

    Args:
        release: complete but for the switch.
        programs: keeps the engines' logs.
        on_progress: called with steps done.
        golden: what to ask.

    Returns:
        What the last model answered.

    Raises:
        ApplyRestoredError: an engine did not start, or its answer was not accepted.
    """
    answer = ""
    models = release.contents.models
    for done, model in enumerate(models):
        on_progress(Progress("asking the candidate", done, len(models), "steps"))
        with candidate_errors(model.name):
            answer = _try(release, model, programs, on_progress, golden)
    on_progress(Progress("asking the candidate", len(models), len(models), "steps"))
    return answer


def check_model(engine: Engine | EngineClient, model: Model, golden: GoldenPrompt = DEFAULT) -> str:
    """Ask one model for what it is made for, and judge the answer.

    Args:
        engine: that runs it.
        model: as the signed contents describe it.
        golden: the question to a model that chats.

    Returns:
        The answer, or words about the embedding.

    Raises:
        ApplyRestoredError: it is not accepted.
        ApplianceError: of the engine.
    """
    if model.embedding:
        return judge_embeddings(engine, model)
    answer = engine.chat(golden.prompt, golden.max_tokens).text
    accept(model.name, golden, answer)
    return answer


@contextmanager
def candidate_errors(model: str) -> Iterator[None]:
    """Whatever fails in the block is told as the failure of a candidate; what served before still serves."""
    try:
        yield
    except ApplyRestoredError:
        raise
    except ApplianceError as error:
        raise ApplyRestoredError(
            "candidate.failed",
            model,
            expected="an engine that answers",
            found=f"{error}",
            hint=error.hint or "the release that served before still serves",
        ) from error


def accept(model: str, golden: GoldenPrompt, answer: str) -> None:
    """Judge an answer.

    Raises:
        ApplyRestoredError: it is not one that the golden prompt accepts.
    """
    if not re.search(golden.accept, answer):
        raise ApplyRestoredError(
            "candidate.wrong-answer",
            model,
            expected=f"an answer to {golden.prompt!r} that matches {golden.accept!r}",
            found=repr(answer[:200]),
            hint="the release that served before still serves; show this to whoever built the bundle",
        )


def _try(release: Release, model: Model, programs: Programs, on_progress: OnProgress, golden: GoldenPrompt) -> str:
    # The socket's path must be short, which a prefix need not be.
    folder = Path(tempfile.mkdtemp(prefix="appliance-"))
    log = programs.scratch / f"candidate-{model.name}.log"
    try:
        with start_engine(_spec(release, model), folder, log, on_progress) as engine:
            if engine.isolation != "netns":
                programs.isolation = engine.isolation
            engine.wait_ready()
            return check_model(engine, model, golden)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _spec(release: Release, model: Model) -> EngineSpec:
    file, store = release.model_file(model)
    rendered = json.loads((release.config / f"engine-{model.name}.json").read_bytes())
    return EngineSpec(
        name=model.name,
        file=file,
        store=store,
        runtime=release.runtime,
        context=int(rendered["context"]),
        slots=int(rendered["slots"]),
        # Few threads: whatever serves now goes on serving beside it, and spinning threads would slow down both.
        threads=max(1, thread_count() // 2),
        is_embedding=bool(model.embedding),
    )
