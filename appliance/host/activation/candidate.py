"""The candidate: the engines of a new release, started beside the old one and tried before the switch.

Owns the golden prompts of a model and the check of its answers; `appliance.host.engine` has the checks of embeddings
and of ranking. Below a prefix this module also starts the engines itself; on a whole machine systemd does.

Rules:
- each engine runs as it will serve: with the rendered configuration and the chosen CPU variant, on the verified model,
  without any network;
- every golden prompt of the signed contents is asked; one answer that is not accepted refuses the release;
- an answer is accepted by a regular expression, since greedy text differs between CPU variants.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from appliance.host.engine.client import EngineClient
from appliance.host.engine.embedding_check import check_embeddings
from appliance.host.engine.engine_command import EngineSpec
from appliance.host.engine.process import Engine, start_engine
from appliance.host.engine.ranking_check import check_ranking
from appliance.host.engine.wrong_answer import wrong_answer
from appliance.host.machine.threads import thread_count
from appliance.host.process.programs import Programs
from appliance.host.release.release import Release
from bundles.contents.contents import Model
from bundles.contents.golden_set import MAX_SET_BYTES, GoldenPrompt, parse_golden_set
from bundles.gguf.kind import RERANK
from bundles.progress import OnProgress, Progress
from signing.digest import Digest, sha256
from signing.errors import ApplianceError, ApplyRestoredError, DamagedError

# A few tokens show that it answers at all; an emulated processor makes one or two tokens a second.
DEFAULT = GoldenPrompt("Name the capital of France.", 8, ".+")


def try_candidate(release: Release, programs: Programs, on_progress: OnProgress) -> str:
    """Start each engine of a release, check its answer, and stop it.

    Args:
        release: complete, but not switched to.
        programs: holds the folder for the engines' logs.
        on_progress: called with the models done.

    Returns:
        The answer of the last model.

    Raises:
        ApplyRestoredError: an engine did not start, or its answer was not accepted.
    """
    answer = ""
    models = release.contents.models
    for done, model in enumerate(models):
        on_progress(Progress("trying the candidate", done, len(models), "steps"))
        with candidate_errors(model.name):
            answer = _try(release, model, programs, on_progress)
    on_progress(Progress("trying the candidate", len(models), len(models), "steps"))
    return answer


def golden_prompts(release: Release, model: Model) -> tuple[GoldenPrompt, ...]:
    """Read the prompts that a model of a release must answer, from verified bytes.

    Args:
        release: its files are installed.
        model: of its signed contents.

    Returns:
        Every prompt of the golden sets that the contents name for it; one short prompt where they name none.

    Raises:
        DamagedError: a golden set is not what was signed.
        NotTrustedError: what was signed is no golden set.
    """
    found: list[GoldenPrompt] = []
    for path in model.golden:
        file = release.contents.by_path[path]
        found += parse_golden_set(_read_signed(release.place(file), file.path, file.sha256), path)
    return tuple(found) or (DEFAULT,)


def check_model(engine: Engine | EngineClient, model: Model, golden: Sequence[GoldenPrompt] = (DEFAULT,)) -> str:
    """Check that a model gives right answers, embeddings or scores.

    Args:
        engine: runs the model.
        model: as the signed contents describe it.
        golden: the prompts for a model that chats, from `golden_prompts`; at least one.

    Returns:
        The last answer; of a model that embeds or ranks a line about its numbers, for people.

    Raises:
        ApplyRestoredError: an answer is not accepted.
        ApplianceError: the engine does not answer.
    """
    if model.embedding:
        return check_embeddings(engine, model)
    if model.purpose == RERANK:
        return check_ranking(engine, model)
    answer = ""
    for one in golden:
        answer = engine.chat(one.prompt, one.max_tokens).text
        check_answer(model.name, one, answer)
    return answer


@contextmanager
def candidate_errors(model: str) -> Iterator[None]:
    """Raise every error of the block as `ApplyRestoredError`; the release that served before still serves."""
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


def check_answer(model: str, golden: GoldenPrompt, answer: str) -> None:
    """Check an answer to the golden prompt.

    Args:
        model: its name, for the error.
        golden: the prompt.
        answer: of the model.

    Raises:
        ApplyRestoredError: the golden prompt does not accept it.
    """
    if not re.search(golden.accept, answer):
        raise wrong_answer(model, f"an answer to {golden.prompt!r} that matches {golden.accept!r}", repr(answer[:200]))


def _read_signed(path: Path, name: str, digest: Digest) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_SET_BYTES + 1)
    except OSError as error:
        raise DamagedError(
            "golden.unreadable", name, expected="the file as it was signed", found=error.strerror or str(error)
        ) from None
    if (found := sha256(data)) != digest:
        raise DamagedError("golden.damaged", name, expected=f"sha256 {digest}", found=f"sha256 {found}")
    return data


def _try(release: Release, model: Model, programs: Programs, on_progress: OnProgress) -> str:
    # The path of a socket must be short; that of a prefix may be long.
    folder = Path(tempfile.mkdtemp(prefix="appliance-"))
    log = programs.scratch / f"candidate-{model.name}.log"
    try:
        with start_engine(_spec(release, model), folder, log, on_progress) as engine:
            if engine.isolation != "netns":
                programs.isolation = engine.isolation
            engine.wait_ready()
            return check_model(engine, model, golden_prompts(release, model))
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
        # Few threads: the release that serves goes on beside it, and too many threads would slow down both.
        threads=max(1, thread_count() // 2),
        is_embedding=bool(model.embedding),
        min_level=str(rendered.get("min_level", "")),
        is_ranking=model.purpose == RERANK,
    )
