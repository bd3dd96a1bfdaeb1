"""A gateway before the shipped engine, with a model that chats, one that embeds and one that sorts documents."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from appliance.host.engine.engine_command import EngineSpec
from appliance.host.runtime.unpacked import of_wheel
from tests.appliance.real_engine import describe_model
from tests.appliance.serve.gateway.site import Site, opened
from tests.appliance.shipped import shipped_model, shipped_runtime
from tests.sim.gguf_models import EMBEDDER, write_embedder

CONTEXT = 2048


@contextmanager
def real_site() -> Iterator[Site]:
    """The site, for the length of a block."""
    # The path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="clients-") as name:
        folder = Path(name)
        (folder / "runtime").mkdir()
        unpacked = of_wheel(shipped_runtime().path, folder / "runtime")
        # The plain variant takes five times as long.
        has_avx2 = {"avx2", "fma", "f16c", "bmi2"} <= set(Path("/proc/cpuinfo").read_text().split())
        runtime = unpacked.folder_with("haswell" if has_avx2 else "x64")
        made = {"embeds": folder / "embeds.gguf", "ranks": folder / "ranks.gguf"}
        for model, path in made.items():
            write_embedder(path, is_ranker=model == "ranks")

        def spec(_folder: Path, name: str, slots: int) -> EngineSpec:
            path = made.get(name) or shipped_model()[1]
            context = EMBEDDER.context if name in made else CONTEXT
            return replace(
                EngineSpec(name, describe_model(path), path, runtime, context, slots, threads=1),
                is_embedding=name == "embeds",
                is_ranking=name == "ranks",
            )

        with opened(folder, {"toy": 2, "embeds": 1, "ranks": 1}, spec=spec) as site:
            yield site
