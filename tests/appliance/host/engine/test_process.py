"""An engine gets a verified model by descriptor, no network, and nothing of the caller's environment."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from appliance.engine_program import stack_bytes
from appliance.host.engine.process import MAX_SOCKET_PATH, start_engine
from signing.errors import ApplianceError, DamagedError, HostUnfitError, UsageError
from tests.sim.engines import make_spec, notes


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="engine-") as folder:
        yield Path(folder)


def test_an_engine_starts_from_a_verified_model_answers_and_stops(tmp_path: Path, run_dir: Path) -> None:
    with start_engine(make_spec(tmp_path), run_dir, tmp_path / "log") as engine:
        engine.wait_ready(20)
        answer = engine.chat("hello", 16)
        assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("olleh", 3, 5)
        assert (engine.level, engine.isolation) == ("E2", "netns")
        assert engine.stop() == 0
    assert not engine.socket.exists()


def test_the_engine_opens_the_descriptor_that_was_verified_and_never_the_path(tmp_path: Path, run_dir: Path) -> None:
    spec = make_spec(tmp_path)
    with start_engine(spec, run_dir, tmp_path / "log") as engine:
        spec.store.write_bytes(b"BAD HEAD and another body, put there after the check")
        engine.wait_ready(20)
        arguments = notes(run_dir)[0]["argv"]
        assert arguments[arguments.index("--model") + 1].startswith("/proc/self/fd/")
        assert str(spec.store) not in arguments


def test_the_engine_gets_no_setting_of_the_caller_and_no_feature_that_fetches(
    tmp_path: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LLAMA_ARG_TOOLS", "LD_LIBRARY_PATH", "GGML_BACKEND_PATH", "HTTPS_PROXY", "HF_TOKEN"):
        monkeypatch.setenv(name, "from the caller")
    spec = make_spec(tmp_path)
    with start_engine(spec, run_dir, tmp_path / "log") as engine:
        engine.wait_ready(20)
        started = notes(run_dir)[0]
    given = {key: text for key, text in started["env"].items() if key != "LC_CTYPE"}
    assert set(given) == {"HOME", "LLAMA_CACHE", "LC_ALL", "GGML_NO_BACKTRACE"}
    assert started["cwd"] == str(spec.runtime)
    assert {"--offline", "--no-ui", "--no-agent", "--no-slots"} <= set(started["argv"])
    assert not [word for word in started["argv"] if word.startswith(("--tools", "--mcp", "--agent", "--media-path"))]
    assert started["argv"][started["argv"].index("--ctx-size") + 1] == str(spec.context * spec.slots)


def test_a_changed_model_is_refused_before_anything_starts(tmp_path: Path, run_dir: Path) -> None:
    spec = make_spec(tmp_path)
    data = bytearray(spec.store.read_bytes())
    data[5000] ^= 1
    spec.store.write_bytes(data)
    with pytest.raises(DamagedError) as caught:
        start_engine(spec, run_dir, tmp_path / "log")
    assert caught.value.subject == spec.file.path
    assert notes(run_dir) == []
    assert not (tmp_path / "log").exists()


def test_an_engine_that_ends_while_loading_is_reported_with_the_end_of_its_log(tmp_path: Path, run_dir: Path) -> None:
    with (
        start_engine(make_spec(tmp_path, data=b"BAD HEAD"), run_dir, tmp_path / "log") as engine,
        pytest.raises(ApplianceError) as caught,
    ):
        engine.wait_ready(20)
    assert caught.value.code == "engine.died"
    assert "exit status 1" in caught.value.found
    assert "invalid magic" in caught.value.found


def test_a_processor_that_lacks_an_instruction_makes_the_host_unfit(tmp_path: Path, run_dir: Path) -> None:
    with (
        start_engine(make_spec(tmp_path, data=b"NEW CPU!"), run_dir, tmp_path / "log") as engine,
        pytest.raises(HostUnfitError, match="SIGILL"),
    ):
        engine.wait_ready(20)


def test_an_engine_that_ends_or_refuses_at_a_request_is_an_error(tmp_path: Path, run_dir: Path) -> None:
    with start_engine(make_spec(tmp_path), run_dir, tmp_path / "log") as engine:
        engine.wait_ready(20)
        with pytest.raises(ApplianceError, match="too long"):
            engine.chat("fail", 1)
        with pytest.raises(ApplianceError, match=r"engine\.(died|no-answer)"):
            engine.chat("die", 1)
        assert engine.child.wait(20) == 128 + signal.SIGABRT


def test_an_engine_that_is_silent_for_too_long_is_an_error(tmp_path: Path, run_dir: Path) -> None:
    with start_engine(make_spec(tmp_path), run_dir, tmp_path / "log") as engine:
        engine.wait_ready(20)
        with pytest.raises(ApplianceError, match="no-answer"):
            engine.chat("hang", 1, timeout_s=0.2)


def test_a_socket_path_that_the_kernel_cannot_hold_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * (MAX_SOCKET_PATH + 1 - len(bytes(tmp_path)) - len("/toy.sock") - 1))
    deep.mkdir()
    with pytest.raises(UsageError) as caught:
        start_engine(make_spec(tmp_path), deep, tmp_path / "log")
    assert caught.value.found == f"{MAX_SOCKET_PATH + 1} bytes"


def test_a_socket_left_by_a_killed_engine_is_no_obstacle(tmp_path: Path, run_dir: Path) -> None:
    (run_dir / "toy.sock").touch()
    with start_engine(make_spec(tmp_path), run_dir, tmp_path / "log") as engine:
        engine.wait_ready(20)


def _open_files(folder: Path) -> list[str]:
    """What this process has open below a folder, or in memory of its own: where a model may lie."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the descriptor of the list itself
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(path for path in found if path.startswith(("/memfd:", str(folder))))


def test_no_descriptor_of_the_model_stays_open_here(tmp_path: Path, run_dir: Path) -> None:
    before = _open_files(tmp_path)
    with start_engine(make_spec(tmp_path), run_dir, tmp_path / "log") as engine:
        engine.wait_ready(20)
    assert _open_files(tmp_path) == before


def test_engine_has_a_stack_for_the_longest_text_that_its_context_takes(tmp_path: Path, run_dir: Path) -> None:
    spec = make_spec(tmp_path)
    with start_engine(spec, run_dir, tmp_path / "log") as engine:
        engine.wait_ready(20)
    [note] = [note for note in notes(run_dir) if "stack" in note]
    assert note["stack"] == stack_bytes(spec.context) == 64 << 20
    # Measured with DeepSeek's and Falcon's tokenizers: 131 072 equal signs take 32 to 64 MiB.
    assert stack_bytes(8192) >= 64 << 20
    assert stack_bytes(1 << 20) == 1 << 30
