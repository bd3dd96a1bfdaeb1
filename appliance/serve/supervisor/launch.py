"""What a release says is to be served.

Owns how the rendered configuration becomes engines. The configuration was written on this host and is signed by nobody:
it may choose among signed models and say how many tokens and slots they get, and nothing else. Where a model and its
program lie comes from the signed contents and the tree of the host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from appliance.host.engine.command import PROGRAM, EngineSpec
from appliance.host.release.release import Release, runtime_members
from appliance.serve.gateway.messages import Plan, PlannedModel
from bundles.contents.model import Model
from signing.digest import Digest, sha256
from signing.errors import DamagedError, DriftError, NotTrustedError
from signing.strictjson import load

GATEWAY_FILE = "gateway.json"
_MAX_CONFIG_BYTES = 64 << 10
_MOST = {"context": 1 << 24, "slots": 256, "port": 65535}


@dataclass(frozen=True, slots=True)
class Served:
    """One model to serve: its signed description, and what its engine is to run."""

    model: Model
    spec: EngineSpec


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
    """

    release: Release
    bind: str
    port: int
    policy: Digest
    engine: Digest
    models: tuple[Served, ...]


def read_launch(release: Release, threads: int) -> Launch:
    """Read the rendered configuration of a release.

    Args:
        release: opened; `check_release` compares the same files with what was rendered.
        threads: for each engine.

    Raises:
        DamagedError: a file of the configuration is missing or cannot be understood.
        DriftError: it says something else than the signed contents do.
    """
    data, gateway = _read(release, GATEWAY_FILE)
    names = _field(gateway, "models", list, GATEWAY_FILE)
    known = {model.name: model for model in release.contents.models}
    if not names or len(set(map(str, names))) != len(names) or not all(str(name) in known for name in names):
        raise _drift(f"config/{GATEWAY_FILE}", f"models among {', '.join(sorted(known))}", str(names)[:200])
    return Launch(
        release,
        _field(gateway, "bind", str, GATEWAY_FILE),
        _number(gateway, "port", 0, GATEWAY_FILE),
        sha256(data),
        _engine_digest(release),
        tuple(_served(release, known[name], threads) for name in map(str, names)),
    )


def plan_of(launch: Launch, socket_of: Callable[[str], Path]) -> Plan:
    """What the gateway is told about a launch.

    Args:
        launch: what is to be served.
        socket_of: where the engine of a model, given by its name, listens.
    """
    release = launch.release
    models = tuple(
        PlannedModel(
            served.model.name,
            str(socket_of(served.model.name)),
            served.spec.slots,
            served.spec.context,
            served.spec.file.sha256,
            served.model.template or "",
            served.model.embedding,
        )
        for served in launch.models
    )
    bundle, access = release.bundle.value, str(release.prefix.access)
    return Plan(bundle.label, bundle.manifest, launch.policy, launch.engine, access, models)


def _served(release: Release, model: Model, threads: int) -> Served:
    name = f"engine-{model.name}.json"
    config = _read(release, name)[1]
    file, store = release.model_file(model)
    wanted = {"name": model.name, "model": model.path, "store": str(store), "runtime": str(release.runtime)}
    found = {key: config.get(key) for key in wanted}
    if found != wanted:
        raise _drift(f"config/{name}", str(wanted), str(found)[:400])
    context, slots = _number(config, "context", 1, name), _number(config, "slots", 1, name)
    return Served(
        model, EngineSpec(model.name, file, store, release.runtime, context, slots, threads, bool(model.embedding))
    )


def _engine_digest(release: Release) -> Digest:
    # The program alone is a few kilobytes that load libraries; the wheel's digest stands for all of them.
    for file, member in runtime_members(release.contents):
        if PurePosixPath(member.path).name == PROGRAM:
            return file.sha256
    raise NotTrustedError("contents.no-engine", "contents.json", expected=f"a runtime with {PROGRAM}", found="none")


def _read(release: Release, name: str) -> tuple[bytes, dict[str, Any]]:
    path = release.config / name
    try:
        data = path.read_bytes()
        value = load(data, name, _MAX_CONFIG_BYTES)
    except OSError as error:
        raise _damaged(path, name, error.strerror or "") from None
    except NotTrustedError as error:
        raise _damaged(path, name, error.found) from None
    if not isinstance(value, dict):
        raise _damaged(path, name, type(value).__name__)
    return data, value


def _field(config: dict[str, Any], key: str, kind: type, name: str) -> Any:
    if type(config.get(key)) is not kind:
        raise _drift(f"config/{name}", f"{key}: {kind.__name__}", repr(config.get(key))[:80])
    return config[key]


def _number(config: dict[str, Any], key: str, least: int, name: str) -> int:
    value = _field(config, key, int, name)
    if not least <= value <= _MOST[key]:
        raise _drift(f"config/{name}", f"{key} from {least} to {_MOST[key]}", str(value))
    return int(value)


def _damaged(path: Path, name: str, found: str) -> DamagedError:
    return DamagedError(
        "release.config",
        f"config/{name}",
        expected=f"{path} as the install rendered it",
        found=found,
        hint="run the same `appliance install` again: it repairs the release",
    )


def _drift(subject: str, expected: str, found: str) -> DriftError:
    return DriftError(
        "release.config-changed",
        subject,
        expected=expected,
        found=found,
        hint="run the same `appliance install` again: it repairs the release",
    )
