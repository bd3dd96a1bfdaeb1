"""The services of a release as units of systemd: to try a candidate, to switch to it, and to restore the old release.

Owns the order in which units are installed, enabled, started and stopped.

Rules (threat T35):
- before the switch, the engines of a release start only while its trial mark exists, which a boot removes;
- the new units are enabled before the one rename of `current`, and the old engines are stopped after it. So a boot
  after a power cut, at any moment, starts the units of the release that `current` names; the others do not start;
- every install writes a unit again that was changed since it was installed;
- where the memory holds one release only, its engines end before those of the next one start. A mark shows the gateway
  that this is a window, and no decision of an operator;
- the gateway is restarted, and its socket is not: who connects meanwhile waits in the socket. Only where the address or
  the port changes, or a release without the socket is involved, the port is closed for a moment.
"""

from __future__ import annotations

import grp
import http.client
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path

from appliance.host.activation.candidate import candidate_errors, check_model, golden_prompts
from appliance.host.activation.health import Health
from appliance.host.engine.client import EngineClient
from appliance.host.engine.load_mark import remove_mark, set_mark
from appliance.host.engine.state import SERVING, STOPPED, UNIT_STOPPED
from appliance.host.layout.prefix import Prefix
from appliance.host.layout.unit_files import (
    ENGINE,
    GATEWAY_SOCKET,
    GATEWAY_UNIT,
    GROUP,
    RENDERED,
    TRIAL_UNIT,
    USERS,
    engine_requests,
    engine_socket,
    engine_unit,
    engine_units,
    has_socket,
    install_unit,
    installed_engines,
    load_mark,
    remove_unit,
    resident_units,
    timer_units,
    trial_mark,
    unit_names,
    window_mark,
)
from appliance.host.process import systemctl
from appliance.host.process.journal import command_sink
from appliance.host.release.release import Release, open_release
from appliance.host.release.rendered_configuration import on_demand_models, read_configuration
from appliance.host.site.api_keys import AccessStore, ensure_default
from appliance.host.tls.files import TlsFiles
from appliance.host.tls.key_owner import give_key
from appliance.host.tls.local_connection import connect_locally
from bundles.contents.contents import Model
from bundles.progress import OnProgress, Progress
from signing.errors import ApplianceError

READY_S = 300.0
_POLL_S = 0.5
_UNLOADED_S = 30.0
"""How long the end of a trial waits for the memory of a model that is loaded on demand."""


class SystemdServices:
    """The implementation of `Services` on a whole machine.

    Args:
        prefix: the host.
        now: the clock, in UTC, for the expiry of the first key.
    """

    def __init__(self, prefix: Prefix, now: Callable[[], datetime]) -> None:
        self._prefix, self._now = prefix, now
        self._changed: list[str] = []

    def make_room(self, release: Release) -> None:
        """See `Services.make_room`. The mark comes first: the gateway then does not take the end for an operator's."""
        own = engine_units(release.contents, release.bundle.value.manifest)
        if others := [name for name in installed_engines(self._prefix) if name not in own]:
            window_mark(self._prefix).touch()
            systemctl.stop(others)

    def try_candidate(self, release: Release, on_progress: OnProgress) -> str:
        """See `Services.try_candidate`. The engines go on running, and serve after the switch."""
        models, manifest = release.contents.models, release.bundle.value.manifest
        names = engine_units(release.contents, manifest)
        for name in names:
            install_unit(self._prefix, release.path, name)
        systemctl.reload()
        trial_mark(self._prefix, release.path).touch()
        answer = ""
        with candidate_errors(models[-1].name):
            systemctl.restart(names)
        on_demand = on_demand_models(release)
        for done, model in enumerate(models):
            on_progress(Progress("trying the candidate", done, len(models), "steps"))
            loaded = self._loaded(release, model) if model.name in on_demand else nullcontext()
            with candidate_errors(model.name), loaded:
                answer = self._check_model(release, model)
        on_progress(Progress("trying the candidate", len(models), len(models), "steps"))
        return answer

    @contextmanager
    def _loaded(self, release: Release, model: Model) -> Iterator[None]:
        """Load a model that is loaded on demand, for the length of the block: the memory may hold one at a time."""
        mark, folder = load_mark(self._prefix, release.path, model.name), engine_requests(self._prefix)
        if not folder.is_dir():
            folder.mkdir(mode=0o750)
            shutil.chown(folder, USERS[1], GROUP)  # of the gateway, which starts later
        set_mark(mark)
        try:
            yield
        finally:
            remove_mark(mark)
            client = EngineClient(model.name, engine_socket(self._prefix, release.path, model.name), "")
            until = time.monotonic() + _UNLOADED_S
            while client.state().status == SERVING and time.monotonic() < until:
                time.sleep(_POLL_S)

    def end_candidate(self, release: Release) -> None:
        """See `Services.end_candidate`."""
        systemctl.stop(engine_units(release.contents, release.bundle.value.manifest))
        trial_mark(self._prefix, release.path).unlink(missing_ok=True)
        if window_mark(self._prefix).exists():
            serving = _installed(self._prefix, self._prefix.current.resolve())
            if serving:
                systemctl.start(serving)
            window_mark(self._prefix).unlink()

    def watch(self) -> None:
        """See `Services.watch`."""
        systemctl.restart([TRIAL_UNIT], block=False)

    def enable(self, release: Release) -> None:
        """See `Services.enable`."""
        names = unit_names(release.contents, release.bundle.value.manifest)
        self._changed = [name for name in names if install_unit(self._prefix, release.path, name)]
        if self._changed:
            systemctl.reload()
        systemctl.enable(resident_units(names))

    def follow(self, release: Release) -> bool:
        """See `Services.follow`."""
        self._prepare_access()
        self._prepare_key(release)
        # A return to a release without them, or a person, may have stopped timers whose text is the same.
        if timers := timer_units(release.contents):
            systemctl.start(timers)
        engines = engine_units(release.contents, release.bundle.value.manifest)
        if not self._changed and self._is_served(release):
            # One of several models may have been stopped for an incident that this install has cleared.
            if stopped := [name for name in engines if systemctl.state(name).has_ended]:
                systemctl.restart(stopped, block=False)
            return False
        systemctl.start(engines)
        changed = [name for name in resident_units(self._changed) if name not in (GATEWAY_UNIT, GATEWAY_SOCKET)]
        if changed:
            systemctl.restart(changed)
        self._restart_gateway(self._changed, has_socket=has_socket(release.contents))
        self._await_served(release, (GATEWAY_UNIT, *engines))
        window_mark(self._prefix).unlink(missing_ok=True)
        return True

    def retire(self, release: Release) -> None:
        """See `Services.retire`."""
        manifest = release.bundle.value.manifest
        own = engine_units(release.contents, manifest)
        if others := [name for name in installed_engines(self._prefix) if name not in own]:
            systemctl.disable(others)
            systemctl.stop(others)
        trial_mark(self._prefix, release.path).unlink(missing_ok=True)

    def restore(self, before: Path | None, tried: Path) -> None:
        """See `Services.restore`."""
        if before != tried and (engines := _installed(self._prefix, tried)):
            systemctl.disable(engines)
            # The return never waits for the release that failed; what it held is free at once.
            systemctl.end(engines)
        if before is None:
            # The socket first: else it would start the gateway again.
            for name in (GATEWAY_SOCKET, GATEWAY_UNIT):
                if (self._prefix.units / name).exists():
                    systemctl.disable([name])
                    systemctl.stop([name])
            return
        names = _rendered(before)
        changed = [name for name in names if install_unit(self._prefix, before, name)]
        if GATEWAY_SOCKET not in names:
            self._remove_socket()
        systemctl.reload()
        names = resident_units(names)
        systemctl.enable(names)
        # Engines that still run are left alone, unless the release that failed is the same one.
        others = [name for name in names if name not in (GATEWAY_UNIT, GATEWAY_SOCKET)]
        if others:
            (systemctl.restart if before == tried else systemctl.start)(others)
        self._restart_gateway(changed, has_socket=GATEWAY_SOCKET in names)
        self._await_served(open_release(self._prefix, before, self._now()), names)
        window_mark(self._prefix).unlink(missing_ok=True)

    def _restart_gateway(self, changed: Iterable[str], *, has_socket: bool) -> None:
        if has_socket and (GATEWAY_SOCKET in changed or not systemctl.state(GATEWAY_SOCKET).is_active):
            # systemd starts no socket whose service runs.
            systemctl.stop([GATEWAY_UNIT])
            systemctl.restart([GATEWAY_SOCKET])
        systemctl.restart([GATEWAY_UNIT])

    def _remove_socket(self) -> None:
        if (self._prefix.units / GATEWAY_SOCKET).exists():
            systemctl.disable([GATEWAY_SOCKET])
            systemctl.stop([GATEWAY_SOCKET])
            remove_unit(self._prefix, GATEWAY_SOCKET)

    def health(self, release: Release) -> Health:
        """How a release that serves is at this moment, asked on loopback and sockets alone."""
        units = resident_units(unit_names(release.contents, release.bundle.value.manifest))
        states = [systemctl.state(name).active for name in units if name.endswith(".service")]
        sockets = [engine_socket(self._prefix, release.path, model.name) for model in release.contents.models]
        engines = [EngineClient("", socket, "").state() for socket in sockets]
        if "failed" in states or any(one.status == STOPPED and one.reason != UNIT_STOPPED for one in engines):
            return Health.FAILED
        if "inactive" in states or any(one.status == STOPPED for one in engines):
            return Health.STOPPED
        on_demand = on_demand_models(release)
        is_loaded = all(
            one.status == SERVING or model.name in on_demand
            for model, one in zip(release.contents.models, engines, strict=True)
        )
        is_ready = is_loaded and self._is_served(release)
        return Health.READY if is_ready else Health.WAITING

    def _await_served(self, release: Release, units: Iterable[str]) -> None:
        until = time.monotonic() + READY_S
        while not self._is_served(release):
            for name in units:
                _require_running(name)
            if time.monotonic() > until:
                log = systemctl.last_log_lines(GATEWAY_UNIT)
                raise _not_served(GATEWAY_UNIT, f"none within {READY_S:.0f} s; its log ends with: {log}")
            time.sleep(_POLL_S)

    def _check_model(self, release: Release, model: Model) -> str:
        unit = engine_unit(release.bundle.value.manifest, model.name)
        socket = engine_socket(self._prefix, release.path, model.name)
        client = EngineClient(model.name, socket, f"journalctl -u {unit}")
        until = time.monotonic() + READY_S
        while not client.is_healthy():
            _require_running(unit)
            if time.monotonic() > until:
                raise _not_served(
                    unit, f"none within {READY_S:.0f} s; its log ends with: {systemctl.last_log_lines(unit)}"
                )
            time.sleep(_POLL_S)
        return check_model(client, model, golden_prompts(release, model))

    def _prepare_access(self) -> None:
        path = self._prefix.access
        sink = command_sink(is_system=self._prefix.is_system)
        ensure_default(AccessStore(path), self._prefix.default_key, self._now(), sink)
        # The gateway may read the digests of the keys, and change none.
        os.chown(path, 0, grp.getgrnam(GROUP).gr_gid)
        path.chmod(0o640)

    def _prepare_key(self, release: Release) -> None:
        tls = read_configuration(release).gateway.tls
        if tls is not None:
            give_key(self._prefix, Path(tls.key))

    def _is_served(self, release: Release) -> bool:
        """Whether the gateway serves this release with its configuration, and an engine is ready."""
        facts = release.facts.config["config/gateway.json"]
        gateway = json.loads((release.config / "gateway.json").read_bytes())
        tls = TlsFiles.from_json(gateway.get("tls", {}))
        connection = connect_locally(gateway["bind"], gateway["port"], tls, timeout=5.0)
        try:
            connection.request("GET", "/readyz")
            reply = connection.getresponse()
            found = (reply.headers.get("appliance-release"), reply.headers.get("appliance-policy"))
            return reply.status == http.client.OK and found == (release.bundle.value.manifest, facts)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _rendered(release: Path) -> list[str]:
    return sorted(os.listdir(release / RENDERED))


def _installed(prefix: Prefix, release: Path) -> list[str]:
    """The units of a release's engines that are installed in systemd; the release may be incomplete."""
    folder = release / RENDERED
    names = _rendered(release) if folder.is_dir() else []
    return [name for name in names if name.startswith(f"{ENGINE}@") and (prefix.units / name).exists()]


def _require_running(unit: str) -> None:
    state = systemctl.state(unit)
    if state.has_ended:
        raise _not_served(
            unit, f"{state.active}, exit status {state.exit_code}; its log ends with: {systemctl.last_log_lines(unit)}"
        )


def _not_served(unit: str, found: str) -> ApplianceError:
    return ApplianceError(
        "service.not-running", unit, expected="an answer", found=found, hint=f"see `journalctl -u {unit}`"
    )
