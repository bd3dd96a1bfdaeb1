"""What is to be served from a release.

Owns how the rendered configuration becomes engines. The configuration was written on this host and is signed by nobody.
It may choose among signed models and set how many tokens and slots they get, and nothing else. Where a model and its
program lie comes from the signed contents and the tree of the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from appliance.engine_program import PROGRAM
from appliance.host.engine.engine_command import EngineSpec
from appliance.host.engine.load_mark import FOR_EVER
from appliance.host.layout.prefix import make_folder
from appliance.host.machine.thread_choice import choose_threads
from appliance.host.release.release import Release, runtime_members
from appliance.host.release.rendered_configuration import EngineConfig, read_configuration
from appliance.host.site.limits import USUAL_LIMITS, Limits
from appliance.host.tls.files import TlsFiles
from appliance.serve.gateway.messages import Plan, PlannedModel
from bundles.contents.contents import Model
from bundles.gguf.kind import RERANK
from signing.digest import Digest
from signing.errors import NotTrustedError


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model to serve.

    Args:
        model: as the signed contents describe it.
        spec: what its engine is to run.
        keep_alive: seconds without a request after which it is unloaded; 0 for never.
        is_on_demand: whether its engine may be ended, after `keep_alive` or to make room for another model.
    """

    model: Model
    spec: EngineSpec
    keep_alive: int = 0
    is_on_demand: bool = False


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """The memory of models that are loaded on demand.

    Args:
        room: bytes that all of them may take together.
        needs: bytes that each takes while it is loaded, by the model's name.
    """

    room: int = 0
    needs: Mapping[str, int] = field(default_factory=dict)


NO_MEMORY = SharedMemory()


@dataclass(frozen=True, slots=True)
class Launch:
    """All that is to be served from a release.

    Args:
        release: opened.
        bind: address of the gateway.
        port: its port; 0 for any.
        policy: sha256 of the gateway's rendered configuration.
        engine: sha256 of the runtime wheel that the engine's program and libraries were taken from.
        models: at least one.
        limits: of what waits.
        tls: the files of TLS; None for plain http.
        cors: origins of pages in browsers that may read answers.
    """

    release: Release
    bind: str
    port: int
    policy: Digest
    engine: Digest
    models: tuple[ServedModel, ...]
    limits: Limits = USUAL_LIMITS
    tls: TlsFiles | None = None
    cors: tuple[str, ...] = ()


def read_launch(release: Release, threads: int | Callable[[], int]) -> Launch:
    """Read the rendered configuration of a release.

    Args:
        release: opened; `check_release` compares the same files with what was rendered.
        threads: for each engine whose configuration states none; called only where there is such an engine.

    Raises:
        DriftError: as `read_configuration`.
        NotTrustedError: the signed contents name no engine.
    """
    config = read_configuration(release)
    known = {model.name: model for model in release.contents.models}
    if callable(threads):
        threads = threads() if any(not engine.threads for engine in config.engines.values()) else 0
    return Launch(
        release,
        config.gateway.bind,
        config.gateway.port,
        config.gateway.digest,
        _engine_digest(release),
        tuple(
            replace(_served(release, known[name], config.engines[name], threads), is_on_demand=name in config.on_demand)
            for name in config.gateway.models
        ),
        limits=config.gateway.limits,
        tls=config.gateway.tls,
        cors=config.gateway.cors,
    )


def measured_threads(release: Release) -> int:
    """The number of threads for an engine of this machine; measured where that was not done before."""
    folder = release.prefix.engine_state
    if not release.prefix.is_system:  # there systemd makes it, for the user of the engines
        make_folder(folder)
    return choose_threads(folder).threads


def make_plan(
    launch: Launch,
    find_socket: Callable[[str], Path],
    find_mark: Callable[[str], Path] | None = None,
    memory: SharedMemory = NO_MEMORY,
) -> Plan:
    """Make the plan that the gateway gets.

    Args:
        launch: what is to be served.
        find_socket: gives the path where the engine of a model listens, by the model's name.
        find_mark: gives the path of the file that loads a model, by the model's name; None where every model is
            always loaded.
        memory: of the models that are loaded on demand.
    """
    release = launch.release
    models = tuple(
        PlannedModel(
            served.model.name,
            str(find_socket(served.model.name)),
            served.spec.slots,
            served.spec.context,
            served.spec.file.sha256,
            served.model.template or "",
            served.model.embedding,
            task=RERANK if served.spec.is_ranking else "",
            **(_on_demand(served, find_mark, memory) if served.is_on_demand and find_mark is not None else {}),
        )
        for served in launch.models
    )
    bundle, access = release.bundle.value, str(release.prefix.access)
    return Plan(
        bundle.label,
        bundle.manifest,
        launch.policy,
        launch.engine,
        access,
        models,
        launch.limits,
        launch.tls,
        launch.cors,
        memory.room,
    )


def _on_demand(served: ServedModel, find_mark: Callable[[str], Path], memory: SharedMemory) -> dict[str, Any]:
    name = served.model.name
    return {
        "keep_alive": served.keep_alive or FOR_EVER,
        "mark": str(find_mark(name)),
        "memory": memory.needs.get(name, served.spec.file.size),
    }


def _served(release: Release, model: Model, config: EngineConfig, threads: int) -> ServedModel:
    file, store = release.model_file(model)
    is_embedding = bool(model.embedding)
    used = config.threads or threads
    spec = EngineSpec(model.name, file, store, release.runtime, config.context, config.slots, used, is_embedding)
    spec = replace(spec, min_level=config.min_level, is_ranking=model.purpose == RERANK)
    return ServedModel(model, spec, config.keep_alive)


def _engine_digest(release: Release) -> Digest:
    # The program alone is a few kilobytes that load libraries; the wheel's digest stands for all of them.
    for file, member in runtime_members(release.contents):
        if PurePosixPath(member.path).name == PROGRAM:
            return file.sha256
    raise NotTrustedError("contents.no-engine", "contents.json", expected=f"a runtime with {PROGRAM}", found="none")
