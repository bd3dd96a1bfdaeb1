"""A real host below a prefix that serves the shipped model twice: supervisor, engines and gateway as they are.

Owns its keys, and what its processes hold: memory, and descriptors.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from appliance.host.engine.engine_command import EngineSpec
from appliance.host.runtime.unpacked import of_wheel
from appliance.host.site.api_keys import AccessStore
from appliance.host.site.rights import CONCURRENCY, TOKENS_PER_DAY, Rights
from appliance.serve.supervisor import listener, run_dir
from appliance.serve.supervisor.launch_plan import ServedModel, read_launch
from appliance.serve.supervisor.service import Service
from appliance.serve.supervisor.service_event import ServiceEvent
from bundles.progress import ignore
from tests.appliance.real_engine import describe_model
from tests.appliance.shipped import shipped_model, shipped_runtime
from tests.sim.releases import install_toy

MODELS = ("first", "second")
CONTEXT, SLOTS = 1024, 2
RIGHTS = {
    "ann": Rights(role="operator"),
    "bob": Rights(priority=3),
    "one": Rights(quotas={CONCURRENCY: 1}),
    "cut": Rights(priority=9),
    "poor": Rights(quotas={TOKENS_PER_DAY: 400}),
}


@dataclass
class LoadedSite:
    """A host that serves, its keys by name, and what its supervisor has reported."""

    service: Service
    port: int
    keys: dict[str, str]
    events: list[ServiceEvent]

    @property
    def gateway_pid(self) -> int:
        """The process of the gateway."""
        child = self.service.gateway._child
        assert child is not None
        assert child.program_pid is not None
        return child.program_pid

    def engine_pid(self, model: str) -> int:
        """The process of a model's engine."""
        [keeper] = [keeper for keeper in self.service.keepers if keeper.name == model]
        assert keeper.engine is not None
        return keeper.engine.child.program_pid or 0

    def descriptors(self) -> dict[str, int]:
        """How many each process has open: the gateway, the supervisor, and each engine."""
        pids = {"gateway": self.gateway_pid, "supervisor": os.getpid()}
        pids |= {model: self.engine_pid(model) for model in MODELS}
        return {name: len(os.listdir(f"/proc/{pid}/fd")) for name, pid in pids.items()}

    def gateway_bytes(self) -> int:
        """The memory of the gateway that is not shared with files."""
        for line in Path(f"/proc/{self.gateway_pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) << 10
        raise LookupError("RssAnon")


@contextmanager
def loaded_site() -> Iterator[LoadedSite]:
    """The host, for the length of a block."""
    with ExitStack() as stack:
        # The path of a socket must be short.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="load-")))
        release = install_toy(folder)
        store = AccessStore(release.prefix.access)
        now = datetime.now(timezone.utc)
        keys = {name: store.grant(name, now, rights=rights) for name, rights in RIGHTS.items()}
        (folder / "runtime").mkdir()
        unpacked = of_wheel(shipped_runtime().path, folder / "runtime")
        has_avx2 = {"avx2", "fma", "f16c", "bmi2"} <= set(Path("/proc/cpuinfo").read_text().split())
        path = shipped_model()[1]
        usual = EngineSpec(
            "", describe_model(path), path, unpacked.folder_with("haswell" if has_avx2 else "x64"), CONTEXT, SLOTS, 1
        )
        launch = read_launch(release, 1)
        [toy] = launch.models
        models = tuple(ServedModel(replace(toy.model, name=name), replace(usual, name=name)) for name in MODELS)
        listening = stack.enter_context(listener.bind("127.0.0.1", 0))
        sockets = stack.enter_context(run_dir.sockets(release.prefix))
        events: list[ServiceEvent] = []
        service = Service(replace(launch, models=models), listening, sockets, lambda: None, events.append)
        stack.callback(service.stop)
        service.start_engines(ignore)
        listener.listen(listening)
        service.gateway.start()
        yield LoadedSite(service, listening.getsockname()[1], keys, events)
