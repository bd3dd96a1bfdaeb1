"""What holds for the repository as a whole: what it may contain, and what a reader may rely on."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from appliance.cli.command_table import COMMANDS
from appliance.cli.main import appliance

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOP = Path(__file__).resolve().parent.parent
MAX_FILE_BYTES = 512 * 1024
MAX_SIGNING_LINES = 1700
# Spelled in pieces, so that this file does not find itself.
REGISTRY_HOSTS = re.compile(
    r"""py pi\.(org|io) | python hosted\. | hugging face\.co | registry\. npmjs | deb\. debian\.org |
    snapshot\. debian\.org | archive\. ubuntu\.com | gh cr\.io | docker \.io""",
    re.VERBOSE,
)
PRIVATE_KEY = re.compile("-----BEGIN [A-Z ]*" + "PRIVATE KEY-----")
# The kernel reads no clock, environment, network or terminal: those come in as arguments.
NOT_FOR_THE_KERNEL = {"asyncio", "getpass", "locale", "os", "pathlib", "random", "socket", "subprocess", "sys", "time"}


@cache
def tracked_files() -> tuple[Path, ...]:
    """Every file that is tracked, or would be with the next `git add`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TOP,
        capture_output=True,
        check=True,
    )
    paths = (TOP / name.decode() for name in listed.stdout.split(b"\0") if name)
    return tuple(path for path in paths if path.is_file() and not path.is_symlink())


def texts() -> Iterator[tuple[str, str]]:
    for path in tracked_files():
        yield str(path.relative_to(TOP)), path.read_bytes().decode("utf-8", "replace")


def test_no_tracked_file_names_the_host_of_a_registry() -> None:
    assert [name for name, text in texts() if REGISTRY_HOSTS.search(text)] == []


def test_locks_hold_no_address_at_all() -> None:
    locks = [(name, text) for name, text in texts() if "lock" in Path(name).name and not name.endswith(".py")]
    assert locks
    assert [name for name, text in locks if "://" in text] == []


def test_no_tracked_file_holds_a_private_key() -> None:
    assert [name for name, text in texts() if PRIVATE_KEY.search(text)] == []


def test_every_tracked_file_is_small() -> None:
    assert [str(path) for path in tracked_files() if path.stat().st_size > MAX_FILE_BYTES] == []


def imports_of(package: str) -> dict[str, set[str]]:
    """The top-level names that each file of a package imports."""
    found = {}
    for path in sorted((TOP / package).rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
        plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        from_ = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        found[str(path.relative_to(TOP))] = {name.split(".")[0] for name in plain | from_}
    return found


@pytest.mark.parametrize(
    ("package", "allowed"), [("signing", {"signing", "cryptography"}), ("bundles", {"signing", "bundles"})]
)
def test_what_checks_a_stick_imports_the_standard_library_and_nothing_more(package: str, allowed: set[str]) -> None:
    strangers = {
        name: extra
        for name, names in imports_of(package).items()
        if (extra := names - allowed - sys.stdlib_module_names)
    }
    assert strangers == {}


def test_the_trust_kernel_touches_no_clock_environment_network_or_terminal() -> None:
    assert {name: bad for name, names in imports_of("signing").items() if (bad := names & NOT_FOR_THE_KERNEL)} == {}
    for path in (TOP / "signing").rglob("*.py"):
        assert not re.search(r"\b(datetime\.(utc)?now|date\.today|print|input|open)\(", path.read_text()), path


def test_the_product_reads_metadata_by_no_rules_but_its_own() -> None:
    # `rules` and `schemes` are for the client in tests/conformance, which reads other people's repositories.
    passed = []
    for path in (path for package in ("appliance", "bundles") for path in (TOP / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and {one.name for one in node.names} & {"Rules", "Schemes"}:
                passed.append(f"{path.relative_to(TOP)}:{node.lineno}")
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            most = {"walk": 4, "Chain": 4, "read_root": 2, "key_from_json": 2}.get(name, 99)
            if len(node.args) > most or {word.arg for word in node.keywords} & {"rules", "schemes"}:
                passed.append(f"{path.relative_to(TOP)}:{node.lineno}")
    assert passed == []


def test_the_trust_kernel_can_be_read_in_an_hour() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in (TOP / "signing").rglob("*.py"))
    assert lines <= MAX_SIGNING_LINES


@pytest.mark.parametrize("package", ["signing", "bundles"])
def test_what_checks_a_stick_parses_as_python_3_9(package: str) -> None:
    for path in (TOP / package).rglob("*.py"):
        ast.parse(path.read_bytes(), filename=str(path), feature_version=(3, 9))


def test_the_development_lock_holds_every_dependency_with_hashes() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["build"],
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
    ]
    lock = (TOP / "requirements-dev.lock").read_text()
    entries = re.findall(
        r"^([a-z0-9._-]+)==[^\n]* \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", lock, re.MULTILINE
    )
    assert len(entries) == len(re.findall(r"^[a-z]", lock, re.MULTILINE))
    names = {re.split(r"[<>=!~; \[]", line)[0].lower().replace("_", "-") for line in wanted}
    assert names - {name for name, _ in entries} == set()


def commands(group: click.Group, above: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name, groups included."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield " ".join((*above, name)), command
        if isinstance(command, click.Group):
            yield from commands(command, (*above, name))


def test_every_command_has_help_that_ends_with_an_example() -> None:
    without = []
    for name, command in commands(appliance):
        example = (command.help or "").partition("Example:")[2]
        if f"appliance {name}" not in example:
            without.append(name)
    assert without == []


def test_every_option_of_every_command_has_help() -> None:
    silent = [
        f"{name} {parameter.opts[0]}"
        for name, command in commands(appliance)
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert silent == []


def test_every_command_stands_in_the_readme_and_no_other() -> None:
    text = (TOP / "README.md").read_text()
    table = text.partition("## Commands")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `appliance ([a-z ]+?)(?: [^a-z`][^`]*)?` \|", table, re.MULTILINE))
    leaves = {name for name, command in commands(appliance) if not isinstance(command, click.Group)}
    # A row may stand for a whole group.
    groups = documented & {name.split()[0] for name in leaves - documented if " " in name}
    assert documented - groups == {name for name in leaves if name.split()[0] not in groups}


def test_every_named_command_is_there() -> None:
    assert set(COMMANDS) == set(appliance.list_commands(click.Context(appliance)))


def test_the_readme_begins_with_the_two_commands() -> None:
    top = (TOP / "README.md").read_text().splitlines()[:25]
    assert any(line.strip().startswith("make demo") for line in top)
    assert any(line.strip().startswith("make test") for line in top)


def test_every_target_of_the_makefile_says_what_it_does() -> None:
    makefile = (TOP / "Makefile").read_text()
    phony = next(line for line in makefile.splitlines() if line.startswith(".PHONY:")).split()[1:]
    told = re.findall(r"^([a-z-]+):[^=\n]*## \S", makefile, re.MULTILINE)
    assert sorted(told) == sorted(phony)
