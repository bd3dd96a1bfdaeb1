"""The rendered configuration of a release: `config/gateway.json`, and `config/engine-<model>.json` for each model.

Owns the reading of these files. This host rendered them, and they are not signed. So they may choose among the signed
models. They state an address, a port, limits and files of TLS. For each model they state its context, slots, threads,
weakest level, and how long it stays loaded. All else must follow from the signed contents and the path of the release.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.host.layout.places import REPAIR_HINT
from appliance.host.release.release import Release
from appliance.host.site.config import LEVELS, ModelChoice, on_demand
from appliance.host.site.limits import USUAL_LIMITS, Limits
from appliance.host.tls.files import TlsFiles
from bundles.contents.contents import Model
from signing.digest import Digest, sha256
from signing.errors import ApplianceError, DriftError, NotTrustedError
from signing.strictjson import load

GATEWAY_FILE = "gateway.json"
_MAX_CONFIG_BYTES = 64 << 10
_MAX = {"context": 1 << 24, "slots": 256, "port": 65535, "threads": 1024, "keep_alive": 604800}


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """The configuration of the gateway.

    Args:
        bind: the address to listen on.
        port: the port, 0 to 65535; 0 takes any free one.
        models: names of signed models, at least one, each once.
        digest: sha256 of the file.
        limits: of what waits; the defaults where an older release wrote the file.
        tls: the files of TLS; None for plain http.
        cors: origins of pages in browsers that may read answers.
    """

    bind: str
    port: int
    models: tuple[str, ...]
    digest: Digest
    limits: Limits = USUAL_LIMITS
    tls: TlsFiles | None = None
    cors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The configuration of one model's engine.

    Args:
        context: tokens of one conversation.
        slots: conversations at the same time.
        threads: for computing; 0 where a measurement at the start decides.
        min_level: the weakest level at which the model is served; empty for any.
        keep_alive: seconds without a request after which it is unloaded; 0 keeps it loaded for ever.
        pin: whether it is never unloaded.
    """

    context: int
    slots: int
    threads: int = 0
    min_level: str = ""
    keep_alive: int = 0
    pin: bool = False


@dataclass(frozen=True, slots=True)
class Configuration:
    """The whole configuration of a release: of the gateway, and of the engine of each model by the model's name."""

    gateway: GatewayConfig
    engines: Mapping[str, EngineConfig]

    @property
    def on_demand(self) -> frozenset[str]:
        """The models whose engines may be ended; see `appliance.host.site.config.on_demand`."""
        return on_demand({name: ModelChoice("", one.keep_alive, one.pin) for name, one in self.engines.items()})


def read_configuration(release: Release) -> Configuration:
    """Read the rendered configuration of a release.

    Args:
        release: opened; `check_release` compares the files with the rendered ones.

    Raises:
        DriftError: a file is missing, unreadable, or does not fit the signed contents or the path of the release; all
            such files are named.
    """
    errors: list[ApplianceError] = []
    gateway: GatewayConfig | None = None
    engines: dict[str, EngineConfig] = {}
    try:
        gateway = _read_gateway(release)
    except DriftError as error:
        errors.append(error)
    for model in release.contents.models:
        try:
            engines[model.name] = _read_engine(release, model)
        except DriftError as error:
            errors.append(error)
    if gateway is None or errors:
        errors[0].others = tuple(errors[1:])
        raise errors[0]
    return Configuration(gateway, engines)


def on_demand_models(release: Release) -> frozenset[str]:
    """The names of the models that are loaded on demand; none where the configuration cannot be read."""
    try:
        return read_configuration(release).on_demand
    except DriftError:
        return frozenset()


def configuration_errors(release: Release) -> tuple[ApplianceError, ...]:
    """List the errors that `read_configuration` would raise, one for each file; empty where all files fit."""
    try:
        read_configuration(release)
    except DriftError as error:
        others, error.others = error.others, ()
        return (error, *others)
    return ()


def _read_gateway(release: Release) -> GatewayConfig:
    data, config = _read(release, GATEWAY_FILE)
    names = _field(config, "models", list, GATEWAY_FILE)
    known = sorted(model.name for model in release.contents.models)
    if not names or len(set(map(str, names))) != len(names) or not all(str(name) in known for name in names):
        raise _drift(GATEWAY_FILE, f"models among {', '.join(known)}", str(names)[:200])
    bind, port = _field(config, "bind", str, GATEWAY_FILE), _number(config, "port", 0, GATEWAY_FILE)
    # Releases of older versions render neither of these.
    cors = _field({"cors": [], **config}, "cors", list, GATEWAY_FILE)
    return GatewayConfig(
        bind,
        port,
        tuple(map(str, names)),
        sha256(data),
        limits=_limits(config),
        tls=_tls(config),
        cors=tuple(map(str, cors)),
    )


def _limits(config: dict[str, Any]) -> Limits:
    try:
        return Limits.from_json(config.get("limits", {}))
    except ValueError as error:
        raise _drift(GATEWAY_FILE, f"limits: {error}", repr(config["limits"])[:200]) from None


def _tls(config: dict[str, Any]) -> TlsFiles | None:
    try:
        return TlsFiles.from_json(_field({"tls": {}, **config}, "tls", dict, GATEWAY_FILE))
    except ValueError as error:
        raise _drift(GATEWAY_FILE, "tls: absolute paths of certificate, key and client_ca", str(error)) from None


def _read_engine(release: Release, model: Model) -> EngineConfig:
    name = f"engine-{model.name}.json"
    _, config = _read(release, name)
    store = release.model_file(model)[1]
    expected = {"name": model.name, "model": model.path, "store": str(store), "runtime": str(release.runtime)}
    found = {key: config.get(key) for key in expected}
    other = [key for key in expected if found[key] != expected[key]]
    if other:
        raise _drift(
            name,
            ", ".join(f"{key} {expected[key]!r}" for key in other),
            ", ".join(f"{key} {found[key]!r}"[:400] if key in config else f"no {key}" for key in other),
        )
    level = _field(config, "min_level", str, name, "")
    if level and level not in LEVELS:
        raise _drift(name, f"min_level: one of {', '.join(LEVELS)}", repr(level)[:80])
    return EngineConfig(
        _number(config, "context", 1, name),
        _number(config, "slots", 1, name),
        _number(config, "threads", 0, name, 0),
        level,
        _number(config, "keep_alive", 0, name, 0),
        _field(config, "pin", bool, name, False),
    )


def _read(release: Release, name: str) -> tuple[bytes, dict[str, Any]]:
    path = release.config / name
    expected = f"{path} as the install rendered it"
    try:
        data = path.read_bytes()
        value = load(data, name, _MAX_CONFIG_BYTES)
    except OSError as error:
        raise _drift(name, expected, error.strerror or "an unreadable file") from None
    except NotTrustedError as error:
        raise _drift(name, expected, error.found) from None
    if not isinstance(value, dict):
        raise _drift(name, expected, type(value).__name__)
    return data, value


def _field(config: dict[str, Any], key: str, kind: type, name: str, default: Any = None) -> Any:
    # Files of an older release have no such fields: there the default holds.
    if default is not None and key not in config:
        return default
    if type(config.get(key)) is not kind:
        raise _drift(name, f"{key}: {kind.__name__}", repr(config.get(key))[:80])
    return config[key]


def _number(config: dict[str, Any], key: str, minimum: int, name: str, default: int | None = None) -> int:
    value = _field(config, key, int, name, default)
    if not minimum <= value <= _MAX[key]:
        raise _drift(name, f"{key} from {minimum} to {_MAX[key]}", str(value))
    return int(value)


def _drift(name: str, expected: str, found: str) -> DriftError:
    return DriftError("release.config-changed", f"config/{name}", expected=expected, found=found, hint=REPAIR_HINT)
