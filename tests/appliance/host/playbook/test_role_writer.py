"""The rendered files of a role are checked and written whole; an order with a wrong text changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from appliance.host.playbook.role_writer import apply, predict, write_rendered


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
    ("check", "text"),
    [("json", "{"), ("site", "port: x\n"), ("shell", "if\n"), ("unit", "x\n"), ("nft", "flush ruleset\n")],
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


def test_prediction_is_what_is_then_changed_and_changes_nothing(tmp_path: Path) -> None:
    old, open_, new = tmp_path / "old", tmp_path / "open", tmp_path / "new"
    old.write_text("before\n")
    open_.write_text("same\n")
    open_.chmod(0o666)
    inner = tmp_path / "folder" / "file"
    order = {
        "folders": [{"path": str(inner.parent), "mode": "0750"}],
        "files": [file(old, "after\n"), file(open_, "same\n"), file(new, "new\n"), file(inner, "deep\n")],
    }
    before = {path: (path.read_bytes(), path.stat()) for path in tmp_path.iterdir()}
    predicted = predict(order)
    assert {path: (path.read_bytes(), path.stat()) for path in tmp_path.iterdir()} == before
    assert apply(order) == predicted
    assert predict(order) == []
    assert [(one.kind, Path(one.name).name, one.is_new) for one in predicted] == [
        ("folder", "folder", True),
        ("file", "old", False),
        ("file", "open", False),
        ("file", "new", True),
        ("file", "file", True),
    ]
    shown = {one.name: one.as_diff() for one in predicted}
    assert (shown[str(old)]["before"], shown[str(old)]["after"]) == ("before\n", "after\n")
    assert (shown[str(open_)]["before"], shown[str(open_)]["after"]) == ("mode 0666\n", "mode 0644\n")


def test_missing_users_are_predicted_and_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []

    def make(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        called.append(command)
        return subprocess.CompletedProcess(command, 0, b"", b"")

    monkeypatch.setattr(subprocess, "run", make)
    order = {"group": "no-such-group", "users": ["root", "no-such-user"]}
    assert [(one.kind, one.name) for one in predict(order)] == [("group", "no-such-group"), ("user", "no-such-user")]
    assert called == []
    assert apply(order) == predict(order)
    assert [line.split()[:2] for line in called[0][2:]] == [
        ["g", "no-such-group"],
        ["u", "root"],
        ["u", "no-such-user"],
    ]
    assert apply({"group": "root", "users": ["root"]}) == []
    assert len(called) == 1


@pytest.mark.parametrize(
    "text",
    [
        "ExecStart=/bin/true\n",
        "[Service]\nExecStart /bin/true\n",
        "[Servise]\nExecStart=/bin/true\n",
        "[Unit]\nDescription=x\n",
        "",
    ],
)
def test_text_that_is_no_unit_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.service"
    with pytest.raises(ValueError, match=str(path)):
        write_rendered({"files": [file(path, text, check="unit")]})
    assert not path.exists()
