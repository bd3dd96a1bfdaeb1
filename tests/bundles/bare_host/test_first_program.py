"""From the sheet to the one command that installs: what is copied, what is printed, and what a shell makes of it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.builder.bare_host.verifier_zip import build_verifier
from appliance.keys.workspace import Workspace
from bundles.bare_host.command_line import main
from bundles.bootstrap_set import bootstrap_root, own_wheel
from bundles.bundle import open_bundle
from bundles.oci.layout import blob_path
from signing.floors import Floors
from tests.attacks.harness import command
from tests.bundles.bare_host.program import PYTHON, program_sources
from tests.sim.bare import EACH_SHELL, follow
from tests.toy import NOW, build_toy

Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path]:
    folder = tmp_path_factory.mktemp("toy")
    return build_toy(folder, extra=program_sources(folder), python=PYTHON)


@pytest.fixture(scope="module")
def sheet(toy: tuple[Workspace, Path]) -> str:
    return command("trust", "sheet", "--workspace", toy[0].path).out


@pytest.fixture
def stick(toy: tuple[Workspace, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy[1], tmp_path / "stick"))


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("boot") / "verify.pyz"
    path.write_bytes(build_verifier())
    return path


def fingerprint_of(workspace: Workspace) -> str:
    return next(iter(workspace.root().roles["root"].keys.values())).fingerprint


def run(verifier: Path, stick: Path, *options: str) -> Done:
    argv = [sys.executable, "-I", "-B", verifier, stick, "--trust", stick / "metadata/1.root.json", *options]
    return subprocess.run([str(word) for word in argv], capture_output=True, text=True, cwd=stick.parent)


@pytest.mark.parametrize("shell", EACH_SHELL)
def test_sheet_ends_with_one_command_that_starts_the_copied_program(
    toy: tuple[Workspace, Path], stick: Path, sheet: str, shell: str, tmp_path: Path
) -> None:
    host = tmp_path / "a host"
    done = follow(stick, sheet, shell, tmp_path / "operator", ["--prefix", str(host)])
    assert done.returncode == 0, done.stderr
    *answer, typed = done.stdout.splitlines()
    assert "every byte is what was signed" in answer[-1]
    [folder] = [path for path in bootstrap_root(host).iterdir() if path.is_dir()]
    shutil.rmtree(tmp_path / "operator")  # the copies in memory are gone with the next start
    ran = subprocess.run(["sh", "-c", typed], capture_output=True, text=True, cwd="/")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["arguments"] == [
        *("install", str(stick), "--root", str(folder / "root.json")),
        *("--fingerprint", fingerprint_of(toy[0]), "--prefix", str(host)),
    ]
    assert (folder / "root.json").read_bytes() == (stick / "metadata/1.root.json").read_bytes()


def test_relative_paths_are_those_of_the_folder_where_the_operator_stands(
    stick: Path, sheet: str, tmp_path: Path
) -> None:
    (tmp_path / "sheet.sh").write_text(sheet.replace("/dev/shm ", f"{tmp_path} "))
    argv = ["sh", "sheet.sh", "stick", "--prefix", "host"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words = shlex.split(done.stdout.splitlines()[-1])
    assert words[words.index("install") + 1] == str(tmp_path / "stick")
    assert words[words.index("--prefix") + 1] == str(tmp_path / "host")


def test_every_fingerprint_of_the_sheet_is_pinned(toy: tuple[Workspace, Path], verifier: Path, tmp_path: Path) -> None:
    own, other = fingerprint_of(toy[0]), "ab" * 32
    done = run(verifier, toy[1], "--pin", f"{own}\n{other}", "--prefix", str(tmp_path / "host"))
    words = shlex.split(done.stdout.splitlines()[-1])
    assert [words[at + 1] for at, word in enumerate(words) if word == "--fingerprint"] == [own, other]


@pytest.mark.parametrize("pin", ["", "x", "AB" * 32, "$(id)", "ab" * 31])
def test_what_is_no_fingerprint_is_refused_before_the_check(
    verifier: Path, stick: Path, tmp_path: Path, pin: str
) -> None:
    done = run(verifier, stick, "--pin", pin, "--prefix", str(tmp_path / "host"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "trust.fingerprint-spelling" in done.stderr
    assert not (tmp_path / "host").exists()


def test_nothing_is_copied_from_a_stick_that_is_refused(
    toy: tuple[Workspace, Path], verifier: Path, stick: Path, tmp_path: Path
) -> None:
    (stick / "metadata/evil.json").write_text("{}")
    done = run(verifier, stick, "--pin", fingerprint_of(toy[0]), "--prefix", str(tmp_path / "host"))
    assert (done.returncode, done.stdout) == (4, "")
    assert not (tmp_path / "host").exists()


def test_program_that_is_not_on_this_medium_is_missing_and_nothing_is_copied(
    toy: tuple[Workspace, Path], verifier: Path, stick: Path, tmp_path: Path
) -> None:
    contents = open_bundle(stick, (stick / "metadata/1.root.json").read_bytes(), Floors(), NOW).value.contents
    file = own_wheel(contents)
    assert file is not None
    (stick / blob_path(file.chunks[0].sha256)).unlink()
    done = run(verifier, stick, "--pin", fingerprint_of(toy[0]), "--prefix", str(tmp_path / "host"))
    assert done.returncode in (3, 5)
    assert "wheels/airgap_appliance-9.9-py3-none-any.whl" in done.stderr
    assert not (tmp_path / "host").exists()


def test_verify_only_copies_nothing_and_says_how_to_go_on(
    toy: tuple[Workspace, Path], verifier: Path, stick: Path, tmp_path: Path
) -> None:
    pin = fingerprint_of(toy[0])
    done = run(verifier, stick, "--pin", pin, "--prefix", str(tmp_path / "host"), "--verify-only")
    assert (done.returncode, "install" in done.stdout) == (0, False)
    assert "--pin" in done.stderr
    assert not (tmp_path / "host").exists()


def test_ordinary_user_is_told_before_the_check_to_name_a_folder(
    toy: tuple[Workspace, Path],
    stick: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    typed = [str(stick), "--trust", str(stick / "metadata/1.root.json"), "--pin", fingerprint_of(toy[0])]
    assert main(typed) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "prefix.not-root" in said.err
    assert "--prefix DIR" in said.err
    assert main([*typed, "--prefix", str(tmp_path / "host")]) == 0


def test_program_for_another_python_is_6_after_the_check(verifier: Path, tmp_path: Path) -> None:
    workspace, bundle = build_toy(tmp_path / "w", extra=program_sources(tmp_path), python="3.77")
    done = run(verifier, bundle, "--pin", fingerprint_of(workspace), "--prefix", str(tmp_path / "host"))
    assert (done.returncode, "every byte is what was signed" in done.stdout) == (6, True)
    assert f"found Python {PYTHON}" in done.stderr
    assert not (tmp_path / "host").exists()
