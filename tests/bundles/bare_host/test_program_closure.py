"""What the builder marks as the bootstrap set is all that the commands of a host import, and nothing is left out."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path

import pytest

from appliance.builder.assembly.inputs import PROGRAM
from appliance.builder.lock.lockfile import read_lock
from appliance.keys.workspace import Workspace
from bundles import bootstrap_set
from bundles.bootstrap_set import LAUNCHER_FILE, PROGRAM_FOLDER, bootstrap_argv
from tests.toy import build_toy

TOP = Path(__file__).resolve().parents[3]
# What the first command on a host can reach.
HOST_FOLDERS = (
    "appliance/host",
    "appliance/keys",
    "appliance/cli/operator",
    "appliance/cli/planner",
    "appliance/cli/upkeep",
    "appliance/cli/console",
    "bundles",
    "signing",
)
ELSEWHERE = {
    # These run in the release's own environment.
    "appliance/host/playbook/ansible_child.py": {"ansible_runner"},
    "appliance/host/playbook/ansible_program.py": {"ansible"},
    "appliance/keys/signers/pkcs11.py": {"pkcs11"},  # a signer's machine alone
}
IMPORTED_AS = {"pyyaml": "yaml"}


def put_packages(folder: Path, names: Sequence[str]) -> Path:
    """A folder as a host has it after unpacking: links to the installed packages of these names, and to the program."""
    program = folder / PROGRAM_FOLDER
    program.mkdir(parents=True)
    for name in names:
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            (program / top).symlink_to(Path(str(found.locate_file(top))))
    for package in ("appliance", "bundles", "signing"):
        (program / package).symlink_to(TOP / package)
    info = program / "airgap_appliance-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: airgap-appliance\nVersion: 0.1.0\n")
    (folder / LAUNCHER_FILE).write_bytes(bootstrap_set._LAUNCHER)
    return folder


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(bootstrap_argv(folder, [str(one) for one in arguments]), capture_output=True, text=True)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path]:
    return build_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put_packages(tmp_path_factory.mktemp("program"), PROGRAM)


def imported(path: Path) -> set[str]:
    """Packages of others that a module imports anywhere in it, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    tops = {name.partition(".")[0] for name in names}
    return tops - sys.stdlib_module_names - {"appliance", "bundles", "signing", "tests", "__future__"}


def test_what_a_host_imports_is_marked_and_nothing_else_is() -> None:
    found: set[str] = set()
    for folder in HOST_FOLDERS:
        for path in (TOP / folder).rglob("*.py"):
            found |= imported(path) - ELSEWHERE.get(str(path.relative_to(TOP)), set())
    # The one that no module of ours names: `cryptography` loads it.
    assert {IMPORTED_AS.get(name, name) for name in PROGRAM} == found | {"cffi"}


def test_every_package_that_is_elsewhere_is_still_there() -> None:
    for path, names in ELSEWHERE.items():
        assert names <= imported(TOP / path)


@pytest.mark.parametrize(("package", "command"), [("cffi", "trust"), ("click", "--help"), ("cryptography", "trust")])
def test_program_does_not_run_without(package: str, command: str, toy: tuple[Workspace, Path], tmp_path: Path) -> None:
    fewer = put_packages(tmp_path, [name for name in PROGRAM if name != package])
    arguments = [command] if command.startswith("-") else [command, "show", "--workspace", toy[0].path]
    assert run(fewer, *arguments).returncode in (1, 2, 70)


@pytest.mark.parametrize("lock", sorted((TOP / "bundles/recipes").glob("*.lock.json")), ids=lambda path: path.name)
def test_locks_of_this_project_hold_all_of_it_and_it_is_small(lock: Path) -> None:
    wheels = read_lock(lock).of_kind("wheel")
    for python in {one.python or "" for one in wheels if one.python} or {""}:
        marked = [one for one in wheels if one.name in PROGRAM and one.python in (None, "", python)]
        assert {one.name for one in marked} == set(PROGRAM)
        assert sum(one.used.size for one in marked) < 10_000_000


def test_commands_of_the_first_minutes_run(program: Path, toy: tuple[Workspace, Path], tmp_path: Path) -> None:
    workspace, bundle = toy
    root, prefix = bundle / "metadata/1.root.json", tmp_path / "host"
    fingerprint = next(iter(workspace.root().roles["root"].keys.values())).fingerprint
    assert run(program, "--version").stdout.startswith("appliance, version ")
    assert run(program, "install", "--help").returncode == 0
    pinned = run(program, "trust", "pin", root, "--fingerprint", fingerprint, "--prefix", prefix)
    assert pinned.returncode == 0, pinned.stderr
    verified = run(program, "verify", bundle, "--prefix", prefix)
    assert (verified.returncode, "every byte is what was signed" in verified.stdout) == (0, True), verified.stderr
    planned = run(program, "plan", bundle, "--prefix", prefix)
    assert (planned.returncode, "runtimes/runtime.txt" in planned.stderr) == (3, True)  # a toy has no real runtime
    shown = run(program, "trust", "show", "--prefix", prefix)
    assert (shown.returncode, fingerprint in shown.stdout) == (0, True), shown.stderr
