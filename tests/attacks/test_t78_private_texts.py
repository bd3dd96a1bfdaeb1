"""T78: an engine prints a user's text, at a refusal or when it dies. No log has it, and no error shows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.host.engine.engine_log import LogFilter
from appliance.host.engine.process import Engine, start_engine
from signing.errors import ApplianceError
from tests.attacks.harness import guard_off, row
from tests.sim.engines import make_spec

ROW = row(78)
CANARY = "canary-91c0"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with start_engine(make_spec(tmp_path), tmp_path, tmp_path / "engine.log") as engine:
        engine.wait_ready(20)
        yield engine


def die(engine: Engine) -> str:
    """All that an operator sees of an engine that dies on a request."""
    with pytest.raises(ApplianceError):
        engine.chat(f"die loudly {CANARY}", 5)
    error = engine.exit_error(engine.child.wait(20))
    return f"{error} {error.found} {engine.log.read_text()}"


def test_unattacked_reason_of_the_loader_is_shown(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, data=b"BAD HEAD")
    with (
        start_engine(spec, tmp_path, tmp_path / "engine.log") as engine,
        pytest.raises(ApplianceError, match="invalid magic"),
    ):
        engine.wait_ready(20)


def test_attacked_by_a_request_on_which_the_engine_dies(engine: Engine) -> None:
    shown = die(engine)
    assert "ggml.c:1: an assertion failed" in shown
    assert CANARY not in shown


@pytest.mark.parametrize(
    "line",
    [
        f"0.0 W srv operator(): got exception: {CANARY}",
        f"pattern {CANARY} is not supported",
        f"0.0 E llama_x: {CANARY}",
        f"/a/b.cpp:1: {CANARY}",
    ],
)
def test_attacked_by_a_line_that_looks_like_the_engines_own(line: str) -> None:
    lines = LogFilter()
    lines.show("unparsed output: ")
    assert CANARY not in (lines.show(line) or "")


def test_unguarded_the_text_is_in_the_log_and_in_the_error(engine: Engine) -> None:
    with guard_off(ROW.guard, lambda _self, line: line):
        assert die(engine).count(CANARY) >= 2
