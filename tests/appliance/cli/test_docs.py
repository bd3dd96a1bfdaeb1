"""`appliance docs`: every page of the project, read without a network."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.cli.console.terminal import Terminal
from appliance.cli.main import run
from appliance.resources import page_paths
from tests.appliance.pseudo_terminal import read_all

TOP = Path(__file__).resolve().parents[3]
BESIDE = {
    "readme": "README.md",
    "format": "bundles/FORMAT.md",
    "trust": "signing/TRUST.md",
    "playbooks": "playbooks/README.md",
}


def docs(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = run(["docs", *words], Terminal())
    return code, *capsys.readouterr()


def without_comments(path: Path) -> str:
    lines = path.read_text("utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("<!-- "))


def test_every_page_of_the_checkout_has_a_name() -> None:
    expected = {path.stem: path for path in (TOP / "docs").glob("*.md")}
    assert page_paths() == expected | {name: TOP / path for name, path in BESIDE.items()}


def test_without_a_page_all_are_listed_each_with_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = docs(capsys)
    assert code == 0
    assert [name for name in page_paths() if not any(line.startswith(f"{name}  ") for line in out.splitlines())] == []
    assert max(map(len, out.splitlines())) <= 80
    assert "](" not in out


@pytest.mark.parametrize("name", page_paths())
def test_a_page_is_printed_without_comments_where_no_terminal_is(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, out, messages = docs(capsys, name)
    assert (code, messages) == (0, "")
    assert out == without_comments(page_paths()[name]).rstrip("\n") + "\n"


def test_an_unknown_page_exits_2_with_the_names_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, messages = docs(capsys, "glosary")
    assert (code, out) == (2, "")
    assert f"  expected one of {', '.join(page_paths())}\n" in messages
    assert messages.endswith("hint: appliance docs glossary\n")


def test_json_lists_every_page_with_title_and_summary(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = docs(capsys, "--json")
    pages = json.loads(out)["pages"]
    assert (code, [page["name"] for page in pages]) == (0, list(page_paths()))
    assert all(page["title"] and page["summary"] for page in pages)


def test_json_of_one_page_has_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = docs(capsys, "trust", "--json")
    answer = json.loads(out)
    assert (code, answer["title"]) == (0, "Trust")
    assert answer["text"] == without_comments(TOP / "signing/TRUST.md")


def test_on_a_terminal_a_page_is_shown_by_the_pager(tmp_path: Path) -> None:
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\nsed 's/^/paged: /'\n")
    pager.chmod(0o755)
    leader, follower = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "appliance", "docs", "trust"],
        stdin=follower,
        stdout=follower,
        stderr=subprocess.DEVNULL,
        cwd=TOP,
        env={**os.environ, "PAGER": str(pager), "TERM": "xterm"},
    )
    os.close(follower)
    shown = read_all(leader)
    assert child.wait(60) == 0
    assert shown.startswith(b"paged: # Trust")
