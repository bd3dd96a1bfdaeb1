"""The parts of the demo: it shows what really happens, undoes its damage, and leaves no child process behind."""

from __future__ import annotations

import ctypes
import fcntl
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.cli.console.terminal import Terminal
from appliance.cli.demo.chat import ChatAnswer
from appliance.cli.demo.child_commands import PROGRAM, Commands
from appliance.cli.demo.flip_byte import changed_byte, restore
from appliance.cli.demo.network import enter_empty_network, interfaces
from appliance.cli.demo.trace import trace
from signing.digest import sha256
from signing.errors import ApplianceError, DriftError

PR_SET_DUMPABLE = 4


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(range(256)) * 4)
    path.chmod(0o444)
    os.utime(path, ns=(1_600_000_000_000_000_000, 1_500_000_000_123_456_789))
    return path


def state_of(path: Path) -> tuple[bytes, int, int, int]:
    status = path.stat()
    return path.read_bytes(), status.st_ino, status.st_mode, status.st_mtime_ns


def test_exactly_one_byte_changes_and_everything_comes_back(model: Path, tmp_path: Path) -> None:
    before = state_of(model)
    with changed_byte(tmp_path, model) as offset:
        changed = model.read_bytes()
        assert [at for at in range(len(changed)) if changed[at] != before[0][at]] == [offset]
        assert model.stat().st_mode == before[2]
    assert state_of(model) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_a_failing_step_restores_the_byte_too(model: Path, tmp_path: Path) -> None:
    before = state_of(model)
    with pytest.raises(ApplianceError), changed_byte(tmp_path, model):
        raise ApplianceError("demo.unexpected", "x")
    assert state_of(model) == before


def test_a_demo_killed_while_a_byte_is_changed_repairs_it_next_time(model: Path, tmp_path: Path) -> None:
    before = state_of(model)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from appliance.cli.demo.flip_byte import changed_byte\n"
        "with changed_byte(Path(sys.argv[1]), Path(sys.argv[2])):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path, model])
    assert done.returncode == -signal.SIGKILL
    assert model.read_bytes() != before[0]
    assert restore(tmp_path) == model
    assert state_of(model) == before
    assert restore(tmp_path) is None


def test_a_note_about_a_file_that_is_gone_is_dropped(model: Path, tmp_path: Path) -> None:
    with changed_byte(tmp_path, model):
        model.unlink()
    assert list(tmp_path.iterdir()) == []


def shown_by(terminal_talk: io.StringIO) -> Commands:
    return Commands(Terminal(io.StringIO(), terminal_talk))


def test_commands_are_shown_as_they_would_be_typed_with_their_answer() -> None:
    talk = io.StringIO()
    shown_by(talk).run("--version")
    lines = talk.getvalue().splitlines()
    assert lines[0] == "  $ appliance --version"
    assert lines[1].startswith("    appliance, version ")


def test_a_command_that_fails_ends_the_demo_with_its_own_exit_code() -> None:
    with pytest.raises(SystemExit) as ended:
        shown_by(io.StringIO()).run("no-such-command")
    assert ended.value.code == 2


def test_a_refusal_must_have_the_right_exit_code_and_name_the_file() -> None:
    commands = shown_by(io.StringIO())
    finished = commands.refused("no-such-command", code=2, naming="no-such-command")
    assert (finished.code, finished.answer) == (2, "")
    with pytest.raises(ApplianceError, match=r"exit code 3.*exit code 2"):
        commands.refused("no-such-command", code=3, naming="no-such-command")
    with pytest.raises(ApplianceError, match="names model"):
        commands.refused("no-such-command", code=2, naming="model.gguf")
    with pytest.raises(ApplianceError, match="exit code 0"):
        commands.refused("--version", code=3, naming="model.gguf")


def test_a_server_that_does_not_start_is_shown_with_its_own_messages(tmp_path: Path) -> None:
    talk = io.StringIO()
    with (
        pytest.raises(ApplianceError, match="one JSON line"),
        shown_by(talk).serving(tmp_path / "serve.log", "no-such-command"),
    ):
        pass
    assert "no command 'no-such-command'" in talk.getvalue()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_child_outlives_a_demo_that_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    sleeper = tmp_path / "sleeper.py"
    sleeper.write_text(
        f"import os, time, pathlib\npathlib.Path({str(tmp_path)!r}, 'pid').write_text(str(os.getpid()))\n"
    )
    sleeper.write_text(sleeper.read_text() + "time.sleep(120)\n")
    code = (
        "import sys; from appliance.cli import main; from appliance.cli.console.terminal import Terminal\n"
        "from appliance.cli.demo import child_commands\n"
        f"child_commands.PROGRAM = (sys.executable, {str(sleeper)!r})\n"
        "import signal; signal.signal(signal.SIGTERM, main._on_terminate)\n"
        "child_commands.Commands(Terminal()).run('x')"
    )
    demo = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, preexec_fn=heed_ctrl_c)
    pid = int(_soon(lambda: (tmp_path / "pid").read_text() if (tmp_path / "pid").exists() else ""))
    demo.send_signal(number)
    try:
        demo.wait(30)
    finally:
        demo.kill()
    assert _soon(lambda: "gone" if _is_gone(pid) else "") == "gone"


def heed_ctrl_c() -> None:
    # A test run in the background of a shell has SIGINT ignored, and its children would inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _soon(look: Callable[[], str]) -> str:
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen within 100 s")


@pytest.mark.network
@pytest.mark.parametrize("user", [os.geteuid(), 65534] if os.geteuid() == 0 else [os.geteuid()])
def test_the_host_half_has_its_own_loopback_and_nothing_else(user: int) -> None:
    if _in_a_child(user, enter_empty_network):
        pytest.skip("this machine allows no network namespace")
    assert _in_a_child(user, _look_around) == f"['lo'] {user} Network is unreachable"


def _look_around() -> str:
    enter_empty_network()
    # Addresses, not names: this user may not even read the library that looks names up.
    with socket.socket() as server, socket.socket() as inside, socket.socket() as outside:
        server.bind(("127.0.0.1", 0))
        server.listen()
        inside.connect(server.getsockname())
        return f"{interfaces()} {os.geteuid()} {os.strerror(outside.connect_ex(('192.0.2.1', 9)))}"


def _in_a_child(user: int, look: Callable[[], str]) -> str:
    """Run a function in a child process of another user; its answer comes back through a pipe."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if user != os.geteuid():
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
                # A process that changed its user may not write to its own /proc; one that was started so may.
                ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
            os.write(writer, look().encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read().decode()
    assert os.waitpid(pid, 0)[1] == 0
    return answer


@pytest.fixture
def host(tmp_path: Path) -> tuple[Path, Path, ChatAnswer]:
    """A host's tree with the four files that an answer names, the model, and the answer."""
    release = tmp_path / "host/opt/appliance/releases/1.0.0-abc"
    manifest = sha256(b"manifest")
    files = {
        "release": release / "bundle/blobs/sha256" / manifest,
        "model": tmp_path / "host/var/lib/appliance/models/x/m.gguf",
        "engine": release / "wheels/llama_cpp_python-0.whl",
        "policy": release / "config/gateway.json",
    }
    for name, file in files.items():
        file.parent.mkdir(parents=True)
        file.write_bytes(b"manifest" if name == "release" else name.encode())
    (tmp_path / "host/opt/appliance/current").symlink_to("releases/1.0.0-abc")
    digests = {name: sha256(file.read_bytes()) for name, file in files.items()} | {"template": sha256(b"template")}
    return tmp_path / "host", files["model"], ChatAnswer("q", "a", "m", 1, digests)


def test_the_digests_of_an_answer_are_shown_as_sha256sum_checks_them(host: tuple[Path, Path, ChatAnswer]) -> None:
    prefix, model, answer = host
    traced = trace(answer, prefix, model)
    lines = "".join(f"{one}\n" for one in traced if one.file)
    done = subprocess.run(["sha256sum", "--check", "--strict"], input=lines, capture_output=True, text=True)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 4)
    assert [one.name for one in traced if not one.file] == ["template"]


@pytest.mark.parametrize("name", ["release", "model", "engine", "policy"])
def test_an_answer_that_names_other_bytes_than_the_disk_holds_fails_the_demo(
    host: tuple[Path, Path, ChatAnswer], name: str
) -> None:
    prefix, model, answer = host
    file = next(one.file for one in trace(answer, prefix, model) if one.name == name)
    assert file is not None
    file.write_bytes(b"other")
    with pytest.raises(DriftError, match=file.name):
        trace(answer, prefix, model)


def test_a_second_demo_in_the_same_folder_is_busy(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = subprocess.run([*PROGRAM, "demo", "--folder", str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (75, "")
    assert "one demo at a time" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
