"""What every kind of host does: one scenario, each bed in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bed.files_digest import differences
from tests.bed.host import BedError, CommandError, FolderStick, Host


def test_one_scenario_runs_on_every_kind_of_host(host: Host, tmp_path: Path) -> None:
    assert host.run(["sh", "-c", "echo $WORD; pwd; id -u", "sh"], env={"WORD": "a word"}).out == "a word\n/root\n0\n"
    assert host.run(["sh", "-c", "echo why >&2; exit 9"], check=False).err == "why\n"
    with pytest.raises(CommandError, match="ended with 9"):
        host.run(["sh", "-c", "exit 9"])

    before = host.files()
    (tmp_path / "note").write_text("from outside")
    host.put(tmp_path / "note", "/srv/deep/note")
    assert sorted(differences(before, host.files())) == ["+ /srv/deep", "+ /srv/deep/note"]

    (tmp_path / "stick").mkdir()
    (tmp_path / "stick" / "cargo").write_text("cargo")
    place = host.plug(FolderStick("cargo", tmp_path / "stick", is_read_only=True))
    host.run(["cp", f"{place}/cargo", "/srv/cargo"])
    host.run(["sync"])
    host.yank()
    assert host.run(["test", "-e", f"{place}/cargo"], check=False).code != 0

    host.kill()
    with pytest.raises(BedError):
        host.run(["true"])
    host.boot()
    host.get("/srv/cargo", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "cargo"
    host.stop()
    host.boot()
    assert host.run(["cat", "/srv/deep/note"]).out == "from outside"
