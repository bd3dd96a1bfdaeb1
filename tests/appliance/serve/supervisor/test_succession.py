"""A release follows another under `appliance serve`: users see one of them or 503, and never half an answer."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from appliance.engine_program import PROGRAM
from appliance.host.layout.prefix import Prefix
from appliance.host.release.release import Release, current_target
from appliance.host.site.api_keys import AccessStore
from appliance.serve.supervisor import listener, run_dir, succession
from appliance.serve.supervisor.launch_plan import Launch, read_launch
from appliance.serve.supervisor.service import Service
from appliance.serve.supervisor.service_event import FOLLOWED, KEPT, ServiceEvent
from appliance.serve.supervisor.succession import Succession
from bundles.progress import ignore
from tests.appliance.serve.gateway.site import asking
from tests.sim.releases import install_toy
from tests.toy import NOW

Seen = tuple[int, str]
"""What a user saw: the status, and the release that answered; or 0 and what went wrong."""


@dataclass
class Host:
    """A host with two releases, of which `current` names one, and what serves there."""

    releases: dict[str, Release]
    succession: Succession
    port: int
    key: str
    events: list[ServiceEvent]
    changes: list[str]

    @property
    def prefix(self) -> Prefix:
        return self.releases["1.0.0"].prefix

    def point(self, version: str) -> None:
        link(self.releases[version])

    def ask(self) -> Seen:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        body = json.dumps({"model": "toy", "messages": [{"role": "user", "content": "abc"}]})
        try:
            connection.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {self.key}"})
            reply = connection.getresponse()
            value = json.loads(reply.read())
            release = reply.headers["appliance-release"]
            is_refused = reply.status == 503 and int(reply.headers["retry-after"]) > 0
            is_right = reply.status == 200 and value["choices"][0]["message"]["content"] == "cba"
            return (reply.status, release) if is_right or is_refused else (0, f"{reply.status}: {value}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            return 0, f"{type(error).__name__}: {error}"
        finally:
            connection.close()

    def manifest(self, version: str) -> str:
        return self.releases[version].bundle.value.manifest


def link(release: Release) -> None:
    current = release.prefix.current
    current.unlink(missing_ok=True)
    current.symlink_to(release.path.relative_to(release.prefix.opt))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    releases = {version: install_toy(tmp_path, version=version) for version in ("1.0.0", "1.1.0")}
    prefix = releases["1.0.0"].prefix

    def open_current(_prefix: Prefix, _now: datetime) -> Release:
        target = current_target(prefix)
        return next(one for one in releases.values() if str(one.path.relative_to(prefix.opt)) == target)

    # The toy is no whole release: what is compared of one, other tests show.
    monkeypatch.setattr(succession, "open_current", open_current)
    monkeypatch.setattr(succession, "check_release", lambda *_, **__: None)
    monkeypatch.setattr(Succession, "_needs_window", lambda *_: False)
    link(releases["1.0.0"])
    events: list[ServiceEvent] = []
    with ExitStack() as stack:
        listening = stack.enter_context(listener.bind("127.0.0.1", 0))
        sockets = stack.enter_context(run_dir.sockets(prefix))

        def make(launch: Launch, folder: Path) -> Service:
            return Service(launch, listening, folder, lambda: None, events.append)

        service = make(read_launch(releases["1.0.0"], 1), sockets)
        changes: list[str] = []

        def note() -> None:
            changes.append(successor.service.label)

        successor = Succession(service, make, lambda: NOW, events.append, note)
        made = Host(releases, successor, 0, "", events, changes)
        stack.callback(made.succession.stop)
        service.start_engines(ignore)
        made.key = AccessStore(prefix.access).grant("test", NOW)
        listener.listen(listening)
        service.gateway.start()
        made.port = listening.getsockname()[1]
        yield made


@contextmanager
def asked_all_the_time(host: Host) -> Iterator[list[Seen]]:
    seen: list[Seen] = []
    with asking(lambda: seen.append(host.ask()), 2):
        yield seen


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)


@pytest.mark.ci
def test_user_who_asks_all_the_time_sees_the_old_release_or_the_new_one(host: Host) -> None:
    old, new = (200, host.manifest("1.0.0")), (200, host.manifest("1.1.0"))
    first = host.succession.service.sockets
    with asked_all_the_time(host) as seen:
        eventually(lambda: old in seen)
        assert not host.succession.is_due()
        host.point("1.1.0")
        assert host.succession.is_due()
        assert host.succession.follow()
        assert not host.succession.is_due()
        before = len(seen)
        eventually(lambda: new in seen[before:])
        # And back: a return is a switch like any other.
        host.point("1.0.0")
        assert host.succession.follow()
        before = len(seen)
        eventually(lambda: old in seen[before:])
    assert set(seen) == {old, new}
    assert [event.what for event in host.events if event.what in (FOLLOWED, KEPT)] == [FOLLOWED, FOLLOWED]
    assert host.changes == ["toy 1.1.0", "toy 1.0.0"]
    assert not first.exists()


@pytest.mark.ci
def test_release_that_does_not_start_is_refused_once_and_the_one_before_goes_on(host: Host) -> None:
    program = host.releases["1.1.0"].runtime / PROGRAM
    program.write_text("#!/bin/sh\nexit 1\n")
    old = (200, host.manifest("1.0.0"))
    with asked_all_the_time(host) as seen:
        eventually(lambda: old in seen)
        host.point("1.1.0")
        assert not host.succession.follow()
        assert not host.succession.is_due()
        before = len(seen)
        eventually(lambda: len(seen) > before + 4)
    assert set(seen) == {old}
    (kept,) = [event for event in host.events if event.what == KEPT]
    assert kept.subject == "toy 1.0.0"
    # A change of `current`, also to what serves, allows another try.
    host.point("1.0.0")
    assert not host.succession.is_due()
    host.point("1.1.0")
    assert host.succession.is_due()


@pytest.mark.ci
@pytest.mark.parametrize("is_broken", [False, True])
def test_window_answers_503_with_the_time_to_come_again(
    host: Host, monkeypatch: pytest.MonkeyPatch, is_broken: bool
) -> None:
    monkeypatch.setattr(Succession, "_needs_window", lambda *_: True)
    seen: list[Seen] = []
    start_engines = Service.start_engines

    def watched(service: Service, on_progress: object) -> None:
        if service.launch.release.path.name.startswith("1.1.0"):
            eventually(lambda: host.ask()[0] == 503)
            seen.append(host.ask())
            if is_broken:
                raise OSError(5, os.strerror(5))
        start_engines(service, ignore)

    monkeypatch.setattr(Service, "start_engines", watched)
    host.point("1.1.0")
    assert host.succession.follow() is not is_broken
    assert seen == [(503, host.manifest("1.0.0"))]
    serving = "1.0.0" if is_broken else "1.1.0"
    eventually(lambda: host.ask()[0] == 200)
    assert host.ask() == (200, host.manifest(serving))
