"""T101: the name of a stick's folder is written so that the printed command means something else to a shell."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from bundles.bare_host.command_line import main
from tests.attacks.harness import guard_off, row
from tests.bundles.bare_host.program import PYTHON, program_sources
from tests.toy import build_toy

ROW = row(101)
NAMES = [
    *("a b", "$(touch evil)", "`touch evil`", "a;touch evil", "a&touch evil&", "a'b", 'a"b', "-rf", "~root", "*", "#a"),
    *("--yes", "a\\", "!!", "{a,b}", "Ångström", "a=b"),
]
HIDDEN = ["a\nappliance", "a\x1b[2Kb", "a\u202eb", "a\rb", "a\u2066b", "a\tb"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    return build_toy(folder, extra=program_sources(folder), python=PYTHON)[1]


def printed(toy: Path, name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, str, str]:
    """The last line on standard output, and all of standard error, for a stick of this name."""
    stick = Path(shutil.copytree(toy, folder / "media" / name, copy_function=lambda a, b: Path(b).hardlink_to(a)))
    root = toy / "metadata/1.root.json"
    argv = ["--trust", str(root), "--pin", "ab" * 32, "--prefix", str(folder / "host"), "--", str(stick)]
    assert main(argv) == 0
    said = capsys.readouterr()
    return stick, said.out.splitlines()[-1], said.err


def run(line: str, folder: Path) -> list[str]:
    done = subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)["arguments"]
    return found


def test_unattacked_command_installs_from_the_stick(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stick, line, _ = printed(toy, "stick", tmp_path, capsys)
    assert run(line, tmp_path)[:2] == ["install", str(stick)]


@pytest.mark.parametrize("name", NAMES)
def test_attacked_by_a_name_a_shell_reads_one_word(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    stick, line, _ = printed(toy, name, tmp_path, capsys)
    assert run(line, tmp_path)[:2] == ["install", str(stick)]
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("name", HIDDEN)
def test_attacked_by_a_name_that_hides_something_it_must_be_typed(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    _, line, talk = printed(toy, name, tmp_path, capsys)
    assert "install PATH-TO-BE-TYPED-BY-HAND --root" in line
    assert name not in line + talk


def test_unguarded_the_shell_would_run_what_the_name_says(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with guard_off(ROW.guard, lambda path, _otherwise: path):
        _, line, _ = printed(toy, "a;touch evil;b", tmp_path, capsys)
    subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True)
    assert (tmp_path / "evil").exists()
