"""`appliance serve` on hosts that cannot serve: the reason, the next step, the exit code, and nothing started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.cli.console.terminal import Terminal
from appliance.cli.main import run


def test_where_nothing_is_installed_the_next_command_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "--prefix", str(tmp_path / "host")], Terminal()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "expected an installed release" in shown.err
    assert f"appliance install SOURCE --prefix {tmp_path / 'host'}" in shown.err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_does_not_exist_is_a_wrong_command_line(
    tmp_path: Path, port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "--prefix", str(tmp_path), "--port", port], Terminal()) == 2
    assert "--port" in capsys.readouterr().err


def test_the_help_shows_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--help"], Terminal()) == 0
    shown = capsys.readouterr().out
    assert "Example:" in shown
    assert "--port 0" in shown
