"""Engines without weights: a runtime folder whose `llama-server` is the stand-in, and small files as models."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from appliance.engine_program import PROGRAM
from appliance.host.engine.engine_command import EngineSpec
from appliance.host.engine.process import Engine, start_engine
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import File
from signing.digest import sha256

STAND_IN = Path(__file__).with_name("llama_server.py")


def stand_in_for(python: str) -> bytes:
    """The stand-in as a program that this Python runs."""
    return f"#!{python} -IB\n{STAND_IN.read_text()}".encode()


def make_runtime(folder: Path) -> Path:
    """A folder that holds a program named as the engine's."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / PROGRAM
    program.write_bytes(stand_in_for(sys.executable))
    program.chmod(0o755)
    return folder


def make_spec(folder: Path, name: str = "toy", data: bytes = b"weights" * 1000, slots: int = 2) -> EngineSpec:
    """An engine whose model and runtime lie in `folder`."""
    store = folder / "models" / f"{name}.gguf"
    store.parent.mkdir(parents=True, exist_ok=True)
    store.write_bytes(data)
    chunks = tuple(Chunk(sha256(data[at : at + 4096]), len(data[at : at + 4096])) for at in range(0, len(data), 4096))
    file = File(f"models/{name}/{name}.gguf", "model", 0o644, len(data), sha256(data), chunks)
    return EngineSpec(name, file, store, make_runtime(folder / "runtime"), context=512, slots=slots, threads=1)


@contextmanager
def started_engine() -> Iterator[Engine]:
    """An engine that answers, in a folder of its own, for the length of a block."""
    with tempfile.TemporaryDirectory(prefix="engine-") as name:
        folder = Path(name)
        with start_engine(make_spec(folder), folder, folder / "engine.log") as started:
            started.wait_ready(20)
            yield started


def notes(run_dir: Path) -> list[dict[str, Any]]:
    """What the stand-ins in this folder were asked, and who left, in order."""
    path = run_dir / "requests.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
