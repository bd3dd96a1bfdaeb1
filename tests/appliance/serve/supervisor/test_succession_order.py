"""In whatever order releases follow, return and fail: one serves, one gateway is ready, and nothing is left."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.host.layout.prefix import Prefix
from appliance.serve.supervisor import succession
from appliance.serve.supervisor.service import Service
from appliance.serve.supervisor.service_event import FOLLOWED, KEPT, ServiceEvent
from appliance.serve.supervisor.succession import Succession
from signing.errors import ApplianceError
from tests.toy import NOW

PREFIX = Prefix(Path("/x"))
CHECK, ENGINES, GATEWAY = "check", "engines", "gateway"
STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from((None, CHECK, ENGINES, GATEWAY)), st.booleans()), max_size=12
)


def fail() -> None:
    raise ApplianceError("x", "x", expected="x", found="x")


class World:
    """A host of which nothing is real: the releases are letters."""

    def __init__(self) -> None:
        self.current, self.broken, self.is_window = "a", cast("str | None", None), False
        self.engines: list[str] = []
        self.gateways: list[str] = []
        self.sockets: set[str] = set()
        self.events: list[ServiceEvent] = []
        self.made = 0

    def release(self, name: str) -> Any:
        return SimpleNamespace(name=name, path=PREFIX.releases / name, prefix=PREFIX)

    def current_target(self, _prefix: Prefix) -> str:
        return f"releases/{self.current}"

    def needs_window(self, *_: Any) -> bool:
        return self.is_window

    def open_current(self, *_: Any) -> Any:
        return self.release(self.current)

    def check_release(self, *_: Any, **__: Any) -> None:
        if self.broken == CHECK:
            fail()

    def make_sockets(self) -> Path:
        self.made += 1
        self.sockets.add(str(self.made))
        return Path(str(self.made))

    def remove_sockets(self, folder: Path) -> None:
        self.sockets.discard(str(folder))

    def service(self, launch: Any, sockets: Path) -> Service:
        return cast("Service", SimService(self, launch.release, sockets))


class SimService:
    """A service whose engines and gateway are entries of a list."""

    def __init__(self, world: World, release: Any, sockets: Path) -> None:
        self.world, self.launch, self.sockets = world, SimpleNamespace(release=release), sockets
        self.label = release.name
        self.gateway = SimpleNamespace(start=self.start_gateway)

    def start_engines(self, _on_progress: object) -> None:
        if self.world.is_window:
            assert not self.world.engines, "the memory holds the engines of one release"
        if self.world.broken == ENGINES:
            fail()
        self.world.engines.append(self.label)

    def start_gateway(self) -> None:
        if self.world.broken == GATEWAY:
            fail()
        self.world.gateways.append(self.label)

    def make_room(self) -> None:
        self.world.engines.remove(self.label)

    def fill_room(self) -> None:
        if self.label not in self.world.engines:
            self.world.engines.append(self.label)

    def stop(self) -> None:
        # The gateway of the release before ends after the next one is ready, or was never started.
        for running in (self.world.gateways, self.world.engines):
            if self.label in running:
                running.remove(self.label)
        assert self.world.gateways, "no gateway is ready"


@given(steps=STEPS)
@settings(max_examples=60, deadline=None)
def test_one_release_serves_after_every_step(steps: list[tuple[str, str | None, bool]]) -> None:
    world = World()
    first = world.service(SimpleNamespace(release=world.release("a")), world.make_sockets())
    first.start_engines(lambda _: None)
    first.gateway.start()
    with (
        mock.patch.object(succession, "current_target", world.current_target),
        mock.patch.object(succession, "open_current", world.open_current),
        mock.patch.object(succession, "check_release", world.check_release),
        mock.patch.object(succession, "read_launch", lambda release, _threads: SimpleNamespace(release=release)),
        mock.patch.object(succession, "run_dir", world),
        mock.patch.object(Succession, "_needs_window", world.needs_window),
    ):
        found = Succession(first, world.service, lambda: NOW, world.events.append, lambda: None)
        serving = "a"
        for name, broken, is_window in steps:
            world.current, world.broken, world.is_window = name, broken, is_window
            if found.is_due():
                has_followed = found.follow()
                assert has_followed is (broken is None)
                assert world.events[-1].what == (FOLLOWED if has_followed else KEPT)
                serving = name if has_followed else serving
            assert not found.is_due()
            assert (world.engines, world.gateways) == ([serving], [serving])
            assert world.sockets == {str(found.service.sockets)}
