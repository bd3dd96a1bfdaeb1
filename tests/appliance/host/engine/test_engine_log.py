"""What of an engine's output is shown: what is about its model and its program, and no text of a user."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.host.engine import engine_log
from appliance.host.engine.engine_log import LogFilter, read_lines
from appliance.host.engine.load_mark import remove_mark, set_mark
from appliance.host.engine.process import start_engine
from signing.errors import ApplianceError
from tests.appliance.serve.gateway.site import eventually
from tests.sim.engines import make_spec

LOADER = (
    "0.00.033.454 E llama_model_load: error loading model: unknown model architecture: 'imatrix'",
    "0.00.033.454 E gguf_init_from_reader: tensor name 12 is too long: 83 >= 64",
    "0.00.000.001 W load: SPM vocabulary, but newline token not found: unordered_map::at!",
    "0.00.033.454 E cmn  common_init_: failed to load model '/proc/self/fd/5'",
    "0.00.033.454 E srv    load_model: failed to load model, '/proc/self/fd/5'",
    "0.00.033.454 E srv  llama_server: exiting due to model loading error",
    "E error loading model: invalid magic",
)
# As llama.cpp prints them: a user's grammar, request, answer and pattern.
PRIVATE = (
    "common_sampler_init: error initializing grammar sampler for grammar:",
    'root ::= "CANARY"',
    '0.01.521.632 W srv    operator(): got exception: {"error":{"code":400,"message":"CANARY"}}',
    "0.01.521.632 W common_chat_peg_parse: unparsed peg-native output: CANARY",
    "WARNING: JSON schema conversion was incomplete: pattern CANARY is not supported",
    "parse: error parsing grammar: CANARY",
    "  what():  CANARY",
    "llama_grammar_init_impl: CANARY",
    "CANARY",
)
ASSERTION = "/src/vendor/llama.cpp/src/llama-vocab.cpp:2544: GGML_ASSERT(CANARY) failed"


@pytest.mark.parametrize("line", LOADER)
def test_reason_why_a_model_does_not_load_is_shown(line: str) -> None:
    assert LogFilter().show(line) == line


@pytest.mark.parametrize("line", PRIVATE)
def test_line_that_may_hold_a_text_of_a_user_is_dropped_and_counted(line: str) -> None:
    lines = LogFilter()
    assert lines.show(line) is None
    assert lines.dropped == 1


def test_text_of_a_user_cannot_look_like_the_loaders() -> None:
    lines = LogFilter()
    shown = [lines.show(line) for line in ("0.1 W chat: unparsed peg-native output: ", LOADER[0])]
    assert shown == [None, None]


def test_failed_assertion_shows_its_place_and_no_value() -> None:
    assert LogFilter().show(ASSERTION) == "llama-vocab.cpp:2544: an assertion failed, or the program ended itself"


@given(st.text(max_size=80))
def test_no_text_passes_once_users_are_served(text: str) -> None:
    lines = LogFilter()
    lines.is_loading = False
    for one in (text, f"0.0 E llama_x: {text}", f"/a/b.cpp:12: {text}", f"terminate called {text}"):
        shown = lines.show(one)
        assert shown in (None, "b.cpp:12: an assertion failed, or the program ended itself") or text in shown.split("'")


def test_line_without_an_end_takes_no_memory_and_the_next_is_read() -> None:
    source, target = os.pipe()
    if os.fork() == 0:
        os.close(source)
        os.write(target, b"a\n")
        for _ in range(300):
            os.write(target, b"x" * 10_000)
        os.write(target, b"\nb")
        os._exit(0)
    os.close(target)
    assert [(len(line), line[:1]) for line in read_lines(source)] == [(1, "a"), (8192, "x"), (1, "b")]
    os.close(source)
    os.wait()


def test_engine_that_dies_on_a_request_leaves_its_text_in_no_log(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    with start_engine(spec, tmp_path, tmp_path / "log") as engine:
        engine.wait_ready(20)
        with pytest.raises(ApplianceError):
            engine.chat("die loudly CANARY", 5)
        error = engine.exit_error(engine.child.wait(20))
        log = (tmp_path / "log").read_text()
    assert "CANARY" not in log + str(error) + str(error.found)
    assert "ggml.c:1: an assertion failed" in log
    assert "lines of the engine are not shown" in log


def test_unit_becomes_an_engine_whose_output_is_filtered(tmp_path: Path) -> None:
    """The very program that systemd starts, with an engine that prints what is private."""
    lines = [LOADER[0], *PRIVATE, LOADER[0], ASSERTION]
    engine = f"import os, sys; print({chr(10).join(lines)!r}); sys.stdout.flush(); os.abort()"
    become = (
        "import sys; from appliance.serve.unit_programs.engine import become; "
        f"become([sys.executable, '-c', {engine!r}], {{}}, 0)"
    )
    journal = tmp_path / "journal"
    with journal.open("wb") as file:
        done = subprocess.run([sys.executable, "-c", become], stdout=file, stderr=file, cwd=Path(__file__).parents[4])
    assert done.returncode == -signal.SIGABRT
    assert eventually(lambda: "not shown" in journal.read_text())
    shown = journal.read_text()
    assert "CANARY" not in shown
    assert shown.splitlines()[0] == LOADER[0]
    assert "llama-vocab.cpp:2544" in shown


def test_engine_that_the_unit_becomes_inherits_the_model(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_bytes(b"GGUF")
    engine = "import os, sys; os._exit(os.read(int(sys.argv[1]), 4) != b'GGUF')"
    become = (
        "import os, sys; from appliance.serve.unit_programs.engine import become; "
        f"model = os.open({str(model)!r}, os.O_RDONLY); "
        f"become([sys.executable, '-c', {engine!r}, str(model)], {{}}, model)"
    )
    done = subprocess.run(
        [sys.executable, "-c", become], capture_output=True, cwd=Path(__file__).parents[4], timeout=20
    )
    assert done.returncode == 0


def test_unit_whose_engine_cannot_be_started_still_shows_why(tmp_path: Path) -> None:
    become = (
        "from appliance.serve.unit_programs import engine, startup; "
        "startup.run(lambda: engine.become(['/nonexistent/llama-server'], {}, 0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", become], capture_output=True, text=True, cwd=Path(__file__).parents[4], timeout=20
    )
    assert "/nonexistent/llama-server" in done.stderr


def test_filter_is_a_program_that_needs_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", engine_log.__file__],
        input=f"{LOADER[0]}\nCANARY\n",
        capture_output=True,
        text=True,
        timeout=20,
        env={},
    )
    assert done.stderr == f"{LOADER[0]}\n1 lines of the engine are not shown: they may hold texts of users\n"


@pytest.mark.parametrize("times", [0, 2])
def test_program_beside_an_engine_ends_it_when_its_mark_has_gone(tmp_path: Path, times: int) -> None:
    """`times`: how often the mark was there before the engine is looked at."""
    mark = tmp_path / "toy.load"
    engine = "import time; time.sleep(3)"
    become = (
        "import sys; from pathlib import Path; from appliance.serve.unit_programs.engine import become; "
        f"become([sys.executable, '-c', {engine!r}], {{}}, 0, Path({str(mark)!r}))"
    )
    set_mark(mark) if times else None
    process = subprocess.Popen([sys.executable, "-c", become], cwd=Path(__file__).parents[4])
    program = Path(f"/proc/{process.pid}/cmdline")
    assert eventually(lambda: b"time.sleep(3)\0" in program.read_bytes()[-20:])
    time.sleep(2 * engine_log.POLL_S if times else 0)
    remove_mark(mark)
    assert process.wait(20) == (-engine_log.UNLOADING if times else 0)
