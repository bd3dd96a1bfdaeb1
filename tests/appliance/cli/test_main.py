"""The entry point: every way to end has its exit code, and standard output stays clean."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from appliance.cli import main
from appliance.cli.command_table import COMMANDS, CommandEntry
from appliance.cli.console.terminal import Terminal
from appliance.cli.main import appliance

PROGRAM = [sys.executable, "-m", "appliance.cli.main"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command whose body is the given code, with options; return exit code, standard output, standard error."""

    def run(body: str, *options: str) -> tuple[int, str, str]:
        (tmp_path / "tried_command.py").write_text(
            "import click, errno, os, sys\n"
            "from appliance.cli.console.options import json_option, pass_terminal\n"
            "from signing.errors import *\n"
            "@click.command('tried')\n"
            "@json_option\n"
            "@pass_terminal\n"
            "def command(terminal, as_json):\n"
            f"    {body}\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(COMMANDS, "tried", CommandEntry("tried_command", "Try a body", "Tests"))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        sys.modules.pop("tried_command", None)
        out, talk = io.StringIO(), io.StringIO()
        return main.run(["tried", *options], Terminal(out, talk)), out.getvalue(), talk.getvalue()

    return run


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("pass", 0),
        ("raise ApplianceError('a.b', 'x')", 1),
        ("raise UsageError('a.b', 'x')", 2),
        ("raise DamagedError('a.b', 'x')", 3),
        ("raise NotTrustedError('a.b', 'x')", 4),
        ("raise NextStickError('a.b', 'x')", 5),
        ("raise HostUnfitError('a.b', 'x')", 6),
        ("raise ApplyRestoredError('a.b', 'x')", 7),
        ("raise ApplyBrokenError('a.b', 'x')", 8),
        ("raise DriftError('a.b', 'x')", 9),
        ("raise BusyError('a.b', 'x')", 75),
        ("raise click.UsageError('x')", 2),
        ("raise click.BadParameter('x')", 2),
        ("raise KeyboardInterrupt", 130),
        ("raise click.Abort", 130),
        ("sys.exit(9)", 9),
        ("raise ValueError('x')", 70),
        ("raise FileNotFoundError(errno.ENOENT, 'x', '/no/such')", 70),
    ],
)
def test_every_end_has_its_exit_code(run_body: Run, body: str, code: int) -> None:
    assert run_body(body)[:2] == (code, "")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ENOSPC", "no space left on device"),
        ("EACCES", "permission denied"),
        ("EROFS", "read-only file system"),
    ],
)
def test_what_the_machine_refuses_is_not_called_a_bug(run_body: Run, name: str, text: str) -> None:
    code, _, talk = run_body(f"raise OSError(errno.{name}, os.strerror(errno.{name}), '/data/x')")
    assert code == 1
    assert talk.startswith(f"error: {text}: /data/x\nhint: ")


def test_a_folder_that_is_gone_is_not_called_a_bug(
    run_body: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    code, _, talk = run_body("os.getcwd()")
    assert code == 1
    assert talk == "error: the folder that this command runs in is gone\nhint: go to another one first: cd /\n"


@pytest.mark.parametrize("options", [("--bogus", "--json"), ("--json", "--bogus")])
def test_a_wrong_option_is_answered_in_json_wherever_it_stands(run_body: Run, options: tuple[str, ...]) -> None:
    code, out, _ = run_body("pass", *options)
    assert (code, json.loads(out)["exit_code"]) == (2, 2)


def test_the_hint_of_a_refusal_is_in_json_too(run_body: Run) -> None:
    _, out, talk = run_body("raise NotTrustedError('a.b', 'x')", "--json")
    hint = json.loads(out)["errors"][0]["hint"]
    assert hint.startswith("do not use it")
    assert f"hint: {hint}" in talk


def test_a_full_disk_that_is_really_full_exits_1(run_body: Run) -> None:
    code, _, talk = run_body("os.write(os.open('/dev/full', os.O_WRONLY), b'x')")
    assert code == 1
    assert "no space left on device" in talk


def test_a_bug_leaves_a_report_without_environment_or_local_values(
    run_body: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "the-environment-value")
    code, out, talk = run_body("local = 'the-' + 'local-value'; raise ValueError('what went wrong')")
    assert (code, out) == (70, "")
    assert "Traceback" not in talk
    (report,) = tmp_path.glob("appliance-report-*.txt")
    assert str(report) in talk
    text = report.read_text()
    assert "ValueError: what went wrong" in text
    assert "the-environment-value" not in text
    assert "the-local-value" not in text
    assert report.stat().st_mode & 0o077 == 0


def run_program(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=60)


def test_help_lists_every_command_on_standard_output() -> None:
    done = run_program("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert [name for name in COMMANDS if not re.search(rf"^  {name}  ", done.stdout, re.MULTILINE)] == []


def test_no_command_at_all_shows_the_help_as_talk_and_exits_2() -> None:
    done = run_program()
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: appliance" in done.stderr


def test_a_mistyped_command_names_the_one_that_was_meant() -> None:
    done = run_program("dmo")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no command 'dmo'; did you mean 'demo'?\nhint: appliance --help\n"


def test_an_unknown_option_exits_2_and_points_to_the_help() -> None:
    done = run_program("demo", "--fast")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--fast" in done.stderr
    assert done.stderr.endswith("hint: appliance demo --help\n")


@pytest.mark.parametrize(
    "words",
    [
        ("sign", "nothing.json"),
        ("sign", "nothing.json", "--add"),
        ("key", "show", "nothing.pub"),
        ("build", "nothing.yaml"),
        ("plan", "nothing"),
        ("inspect", "nothing"),
        ("diff", "nothing", "nothing"),
        ("install", "nothing", "--prefix", "host"),
        ("stick", "write", "nothing", "stick"),
        ("bundle", "export", "nothing", "localhost:5000/x"),
        ("evidence", "check", "nothing", "--fingerprint", "0" * 64),
        ("trust", "pin", "nothing", "--fingerprint", "0" * 64),
    ],
)
def test_a_file_that_is_not_there_is_the_users_mistake(words: tuple[str, ...]) -> None:
    done = run_program(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "nothing" in done.stderr or "workspace" in done.stderr


def test_a_name_that_no_file_system_takes_is_no_bug() -> None:
    done = run_program("verify", "x" * 300, "--trust", "x" * 300)
    assert (done.returncode, done.stdout) == (1, "")
    assert "file name too long" in done.stderr


def test_the_version_is_the_distributions() -> None:
    assert run_program("--version").stdout == f"appliance, version {version('airgap-appliance')}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_has_the_first_sentence_of_each_commands_help(name: str) -> None:
    command = appliance.get_command(click.Context(appliance), name)
    assert command is not None
    assert COMMANDS[name].help == command.get_short_help_str(limit=200).rstrip(".")


def test_help_loads_no_command_and_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys; from appliance.cli.main import appliance\n"
        "from appliance.cli.command_table import COMMANDS\n"
        "appliance.main(['--help'], standalone_mode=False)\n"
        "heavy = {'ansible_runner', 'uvicorn', 'starlette', 'pydantic', 'httpx', 'huggingface_hub', 'cryptography'}\n"
        "heavy |= {entry.module for entry in COMMANDS.values()} | {'rich'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == "[]\n"


def test_a_reader_who_goes_away_causes_no_noise() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    child = subprocess.Popen([*PROGRAM, "--help"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    _, talk = child.communicate(timeout=60)
    assert (child.returncode, talk) == (128 + signal.SIGPIPE, "")


def heed_ctrl_c() -> None:
    # A test run in the background of a shell has SIGINT ignored, and its children would inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_the_command_clean_up_and_exits_with_128_and_its_number(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    (tmp_path / "waiting_command.py").write_text(
        "import click, pathlib, time\n"
        "@click.command('waiting')\n"
        "def command():\n"
        "    try:\n"
        "        pathlib.Path('started').touch()\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        pathlib.Path('cleaned').touch()\n"
    )
    starter = (
        "import sys; sys.path.insert(0, '.'); sys.argv = ['appliance', 'waiting']\n"
        "from appliance.cli import command_table, main\n"
        "entry = command_table.CommandEntry('waiting_command', 'Wait', 'Tests')\n"
        "command_table.COMMANDS['waiting'] = entry\n"
        "main.main()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", starter], cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(number)
    try:
        _, talk = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == code
    assert (tmp_path / "cleaned").exists()
    assert "Traceback" not in talk


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        ("raise DamagedError('a.b', 'x')", ["a.b"]),
        ("raise worst([DamagedError('a.b', 'x'), NotTrustedError('c.d', 'y')])", ["c.d", "a.b"]),
        ("raise click.BadParameter('x')", [""]),
        ("raise OSError(errno.ENOSPC, 'no space')", [""]),
        ("1 / 0", [""]),
        ("terminal.answer_json({'own': 1}); raise DamagedError('a.b', 'x')", None),
    ],
)
def test_every_failure_is_answered_to_programs_once(body: str, codes: list[str] | None, run_body: Run) -> None:
    _, plain, _ = run_body(body)
    code, answer, _ = run_body(body, "--json")
    failure = json.loads(answer)
    if codes is None:
        assert failure == json.loads(plain) == {"own": 1}
    else:
        assert plain == ""
        assert (code, [error["code"] for error in failure["errors"]]) == (failure["exit_code"], codes)


def test_wrong_option_is_answered_to_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["inspect", "/no/such/bundle", "--json"], Terminal()) == 2
    assert "/no/such/bundle" in json.loads(capsys.readouterr().out)["errors"][0]["found"]


def test_a_command_whose_library_is_not_installed_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "builder_command.py").write_text("import a_library_of_builders\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(COMMANDS, "builder", CommandEntry("builder_command", "Build", "Tests"))
    assert main.run(["builder"], Terminal()) == 1
    out, talk = capsys.readouterr()
    assert out == ""
    assert "found no module a_library_of_builders" in talk
    assert "airgap-appliance[build]" in talk


def test_output_that_cannot_be_written_is_one_error_and_no_more() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*PROGRAM, "--version"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no space left on device")
    assert "Exception ignored" not in done.stderr
