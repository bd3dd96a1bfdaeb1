"""The rendered files of a role are checked and written whole; an order with a wrong text changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from appliance.host.playbook.role_writer import write_rendered


def file(path: Path, content: str, **more: Any) -> dict[str, Any]:
    return {"path": str(path), "mode": "0644", "content": content, **more}


def test_second_order_changes_nothing(tmp_path: Path) -> None:
    folder, config = tmp_path / "audit", tmp_path / "gateway.json"
    order = {"folders": [{"path": str(folder), "mode": "0700"}], "files": [file(config, "{}\n", check="json")]}
    assert write_rendered(order) == [str(folder), str(config)]
    assert write_rendered(order) == []
    assert (config.read_text(), config.stat().st_mode & 0o7777) == ("{}\n", 0o644)
    assert folder.stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_are_set_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    folder, program = tmp_path / "open", tmp_path / "program"
    folder.mkdir()
    program.write_text("exit 0\n")
    order = {"folders": [{"path": str(folder), "mode": "0700"}], "files": [file(program, "exit 0\n")]}
    order["files"][0]["mode"] = "0755"
    before = os.umask(umask)
    try:
        assert write_rendered(order) == [str(folder), str(program)]
    finally:
        os.umask(before)
    assert (folder.stat().st_mode & 0o7777, program.stat().st_mode & 0o7777) == (0o700, 0o755)


def test_file_to_keep_is_left_alone_even_where_it_is_wrong(tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    order = {"files": [file(site, "port: 1\n", check="site", keep=True)]}
    assert write_rendered(order) == [str(site)]
    site.write_text("port: 2\n")
    assert write_rendered(order) == []
    assert site.read_text() == "port: 2\n"
    dangling = tmp_path / "dangling.yaml"
    dangling.symlink_to(tmp_path / "elsewhere")
    assert write_rendered({"files": [file(dangling, "port: 1\n", keep=True)]}) == []
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("check", "text"), [("json", "{"), ("site", "port: x\n"), ("shell", "if\n")], ids=["json", "site", "shell"]
)
def test_text_that_its_reader_refuses_changes_nothing(tmp_path: Path, check: str, text: str) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    bad.write_text("as it was")
    with pytest.raises(ValueError, match=str(bad)):
        write_rendered({"folders": [], "files": [file(good, "x"), file(bad, text, check=check)]})
    assert not good.exists()
    assert bad.read_text() == "as it was"


def test_symbolic_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    outside, link = tmp_path / "outside", tmp_path / "unit.service"
    outside.write_text("theirs")
    link.symlink_to(outside)
    assert write_rendered({"files": [file(link, "ours")]}) == [str(link)]
    assert (outside.read_text(), link.read_text(), link.is_symlink()) == ("theirs", "ours", False)
    folder = tmp_path / "folder"
    folder.symlink_to(tmp_path)
    with pytest.raises(OSError, match="folder"):
        write_rendered({"folders": [{"path": str(folder), "mode": "0700"}]})


def test_program_prints_changed_paths_or_the_error(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-B", "-m", "appliance.host.playbook.role_writer"]
    path = tmp_path / "gateway.json"
    good = subprocess.run(command, input=json.dumps({"files": [file(path, "{}")]}), capture_output=True, text=True)
    assert (good.returncode, json.loads(good.stdout)) == (0, [str(path)])
    bad = subprocess.run(
        command, input=json.dumps({"files": [file(path, "{", check="json")]}), capture_output=True, text=True
    )
    assert (bad.returncode, bad.stdout) == (1, "")
    assert str(path) in bad.stderr
    assert "Traceback" not in bad.stderr
