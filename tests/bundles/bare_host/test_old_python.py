"""An older Python that starts `verify.pyz` states in one line what it lacks; it can read that much of the archive."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.builder.bare_host.verifier_zip import build_verifier
from bundles import __main__ as launcher

SOURCE = Path(launcher.__file__).read_bytes()
# What Python 2.7 and every later version parse alike.
OLD_NODES = {
    *("Module", "Expr", "Constant", "Import", "ImportFrom", "alias", "If", "Compare", "Lt", "Eq", "Load", "Store"),
    *("Attribute", "Name", "Tuple", "Assign", "Call", "Subscript", "Slice", "BinOp", "Add"),
}
FAKED = """\
import runpy, sys
sys.version_info, sys.argv = tuple(map(int, sys.argv[1].split("."))) + ("final", 0), sys.argv[2:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(sorted(name for name in sys.modules if name.split(".")[0] in ("bundles", "signing", "argparse")))
"""


def too_new(source: bytes) -> list[str]:
    """What an old Python could not read in a module."""
    try:
        nodes = list(ast.walk(ast.parse(source, feature_version=(3, 4))))
    except SyntaxError as error:
        return [str(error)]
    found = [type(node).__name__ for node in nodes if type(node).__name__ not in OLD_NODES]
    return found + [
        node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "__future__"
    ]


def start_as(version: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "verify.pyz").write_bytes(build_verifier())
    argv = [sys.executable, "-I", "-B", "-c", FAKED, version, str(folder / "verify.pyz"), "--help"]
    return subprocess.run(argv, capture_output=True, text=True)


def test_every_python_since_2_7_can_read_the_launcher() -> None:
    assert SOURCE.isascii()
    assert too_new(SOURCE) == []


@pytest.mark.parametrize(
    "line", ["from __future__ import annotations", "x: int = 1", "f'{x}'", "def f(a: int): pass", "(y := 1)"]
)
def test_that_check_notices_what_is_newer(line: str) -> None:
    assert too_new(SOURCE + line.encode()) != []


def test_nothing_but_sys_is_imported_before_the_version_is_compared() -> None:
    _, first, second, *rest = ast.parse(SOURCE).body
    assert ast.unparse(first) == "import sys"
    assert ast.unparse(second).startswith("if sys.version_info < (3, 9):")
    assert not any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.walk(second))
    assert [type(one) for one in rest] == [ast.If]


@pytest.mark.parametrize("version", ["2.7.18", "3.4.10", "3.6.8", "3.7.17", "3.8.20"])
def test_older_python_is_6_and_one_line_with_a_next_step(version: str, tmp_path: Path) -> None:
    done = start_as(version, tmp_path)
    first, *rest = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (6, "[]\n")
    assert first == f"error: verify.pyz needs Python 3.9 or newer, this is {version}"
    assert rest[0].startswith("  next: check the stick on another machine")
    assert "Traceback" not in done.stderr


def test_python_3_9_goes_on(tmp_path: Path) -> None:
    done = start_as("3.9.0", tmp_path)
    assert (done.returncode, "argparse" in done.stdout) == (0, True)
