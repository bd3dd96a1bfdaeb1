"""`verify.pyz` is one small file of the same bytes everywhere, and says what `appliance verify` says."""

from __future__ import annotations

import ast
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.builder.bare_host.verifier_zip import build_verifier
from bundles import report
from bundles.bare_host.pyz_members import MAIN, MEMBERS
from tests.attacks.harness import Stick
from tests.bed.entered import enter
from tests.bed.fixtures import tree_folder
from tests.bed.trees import DEBIAN_11

TOP = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("boot") / "verify.pyz"
    path.write_bytes(build_verifier())
    return path


def run(verifier: Path, *arguments: object, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    command = [python, "-I", "-B", str(verifier), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=verifier.parent, timeout=120)


def reached_from(start: str) -> set[str]:
    """Every module of ours that a module imports, and those that they import."""
    todo, seen = [start], set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse((TOP / path).read_bytes())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                base = name.replace(".", "/")
                todo += [file for file in (f"{base}.py", f"{base}/__init__.py") if (TOP / file).is_file()]
    return seen


def test_members_are_exactly_what_the_verifier_imports() -> None:
    packages = {f"{parent}/__init__.py" for member in MEMBERS for parent in Path(member).parents if parent != Path()}
    assert {*MEMBERS, MAIN} == reached_from(MAIN) | packages
    assert list(MEMBERS) == sorted(MEMBERS, key=lambda name: (name.split("/")[0] != "signing", name))


def test_members_need_no_python_newer_than_3_9() -> None:
    vermin = Path(sys.executable).with_name("vermin")
    paths = [str(TOP / name) for name in (*MEMBERS, MAIN)]
    argv = [str(vermin), "--target=3.9-", "--violations", "--no-tips", *paths]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_check_of_the_oldest_python_notices_what_is_newer(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text("from __future__ import annotations\nimport dataclasses, tomllib\n")
    vermin = Path(sys.executable).with_name("vermin")
    done = subprocess.run([str(vermin), "--target=3.9-", "--violations", str(tmp_path / "new.py")], capture_output=True)
    assert done.returncode != 0


def test_archive_holds_the_members_as_they_lie_in_the_program_and_nothing_else() -> None:
    with zipfile.ZipFile(io.BytesIO(build_verifier())) as archive:
        assert archive.namelist() == ["__main__.py", *MEMBERS]
        assert archive.read("__main__.py") == (TOP / MAIN).read_bytes()
        for name in MEMBERS:
            assert archive.read(name) == (TOP / name).read_bytes()
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_same_bytes_from_another_folder_at_another_time_under_another_umask(tmp_path: Path) -> None:
    for package in ("appliance", "bundles", "signing"):
        shutil.copytree(TOP / package, tmp_path / "a longer name" / package, copy_function=shutil.copyfile)
    for path in tmp_path.rglob("*.py"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(0o600)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from appliance.builder.bare_host import verifier_zip;"
        "assert verifier_zip.__file__.startswith(sys.argv[1]); sys.stdout.buffer.write(verifier_zip.build_verifier())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", script, str(tmp_path / "a longer name")],
        capture_output=True,
        check=True,
        umask=0o077,
        env={"TZ": "Pacific/Chatham", "LC_ALL": "C"},
    )
    assert done.stdout == build_verifier()


def test_good_stick_is_verified_and_the_next_step_is_said(stick: Stick, verifier: Path) -> None:
    done = run(verifier, stick.path, "--trust", stick.root_file)
    assert (done.returncode, done.stdout) == (0, stick.command().out)
    assert "every byte is what was signed" in done.stdout
    assert f"appliance trust pin {stick.path}/BOOT/root.json --fingerprint" in done.stderr
    assert f"appliance install {stick.path}" in done.stderr


def test_next_step_names_the_root_file_that_was_given_where_the_stick_has_none(stick: Stick, verifier: Path) -> None:
    shutil.rmtree(stick.path / "BOOT")
    done = run(verifier, stick.path, "--trust", stick.root_file)
    assert done.returncode == 0, done.stderr
    assert f"appliance trust pin {stick.root_file} --fingerprint" in done.stderr


def flip(stick: Stick) -> None:
    blob = min((stick.path / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)


def plant(stick: Stick) -> None:
    (stick.path / "metadata/evil.json").write_text("{}")


def flip_and_plant(stick: Stick) -> None:
    flip(stick)
    plant(stick)


def remove_index(stick: Stick) -> None:
    (stick.path / "index.json").unlink()


def empty(stick: Stick) -> None:
    (stick.path / "oci-layout").unlink()


def one_signature(stick: Stick) -> None:
    stick.repository.edit(stick.repository.targets_name, lambda _: None, by=stick.repository.people.targets[:1])
    stick.save()


def revoke(stick: Stick) -> None:
    stick.publish("revoked")


@pytest.mark.parametrize(
    ("attack", "code"),
    [(flip, 3), (plant, 4), (flip_and_plant, 4), (remove_index, 3), (empty, 2), (one_signature, 4), (revoke, 4)],
)
def test_same_errors_and_exit_codes_as_the_command(
    stick: Stick, verifier: Path, attack: Callable[[Stick], None], code: int
) -> None:
    attack(stick)
    done, command = run(verifier, stick.path, "--trust", stick.root_file), stick.command()
    assert (done.returncode, done.stdout, done.stderr) == (code, "", command.talk)
    assert command.code == code


def test_no_root_is_not_trusted_and_a_wrong_command_line_is_usage(stick: Stick, verifier: Path) -> None:
    assert run(verifier, stick.path).returncode == 4
    assert run(verifier).returncode == 2
    assert run(verifier, stick.path, "--trust", stick.path / "nothing").returncode == 2
    assert run(verifier, stick.path, "--trust", "/dev/zero").returncode == 4


def test_name_that_no_file_system_takes_is_no_bug(stick: Stick, verifier: Path) -> None:
    for path, root in (("x" * 300, stick.root_file), (stick.path, "x" * 300)):
        done = run(verifier, path, "--trust", root)
        assert (done.returncode, done.stdout) == (1, "")
        assert "file name too long" in done.stderr


def test_other_root_is_not_trusted(stick: Stick, toy: Path, verifier: Path) -> None:
    done = run(verifier, stick.path, "--trust", toy / "metadata" / "1.root.json")
    assert (done.returncode, done.stdout) == (4, "")


def test_what_a_host_has_installed_plays_no_part(stick: Stick, verifier: Path) -> None:
    script = (
        "import runpy, sys; sys.argv[:] = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "from signing import keys, p256; assert keys.check_signature is p256.check_signature\n"
    )
    argv = [sys.executable, "-I", "-B", "-c", script, str(verifier), str(stick.path), "--trust", str(stick.root_file)]
    subprocess.run(argv, check=True, capture_output=True)


def test_nothing_is_written_beside_it_or_on_the_stick(stick: Stick, verifier: Path) -> None:
    before = sorted(str(path) for path in (*stick.path.rglob("*"), *verifier.parent.iterdir()))
    assert run(verifier, stick.path, "--trust", stick.root_file).returncode == 0
    assert sorted(str(path) for path in (*stick.path.rglob("*"), *verifier.parent.iterdir())) == before


def test_hostile_text_is_spelled_out() -> None:
    assert report.escape("a\x1b[2Jb\u202ec") == "a\\x1b[2Jb\\u202ec"


@pytest.mark.bed
def test_python_3_9_of_debian_11_verifies_and_refuses(stick: Stick, verifier: Path) -> None:
    tree = tree_folder(DEBIAN_11)
    shutil.copy(verifier, stick.path)
    shutil.copy(stick.root_file, stick.path / "trusted.json")
    command = ["python3", "-I", "-B", "/media/verify.pyz", "/media", "--trust", "/media/trusted.json"]
    assert enter(tree, stick.path, ["python3", "--version"]).stdout.startswith("Python 3.9.")
    assert enter(tree, stick.path, ["python3", "-c", "import cryptography"]).returncode != 0
    done = enter(tree, stick.path, command)
    assert (done.returncode, done.stderr.count("error")) == (0, 0), done.stderr
    assert "every byte is what was signed" in done.stdout
    flip(stick)
    done = enter(tree, stick.path, command)
    assert (done.returncode, done.stdout) == (3, "")
    plant(stick)
    assert enter(tree, stick.path, command).returncode == 4
