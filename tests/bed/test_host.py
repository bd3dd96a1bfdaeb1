"""What every kind of host does: one scenario, each bed in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bed.files_digest import differences
from tests.bed.host import BedError, CommandError, FolderStick, Host


def test_one_scenario_runs_on_every_kind_of_host(any_host: Host, tmp_path: Path) -> None:
    assert (
        any_host.run(["sh", "-c", "echo $WORD; pwd; id -u", "sh"], env={"WORD": "a word"}).out == "a word\n/root\n0\n"
    )
    assert any_host.run(["sh", "-c", "echo why >&2; exit 9"], check=False).err == "why\n"
    with pytest.raises(CommandError, match="ended with 9"):
        any_host.run(["sh", "-c", "exit 9"])

    before = any_host.files()
    (tmp_path / "note").write_text("from outside")
    any_host.put(tmp_path / "note", "/srv/deep/note")
    assert sorted(differences(before, any_host.files())) == ["+ /srv/deep", "+ /srv/deep/note"]

    (tmp_path / "stick").mkdir()
    (tmp_path / "stick" / "cargo").write_text("cargo")
    place = any_host.plug(FolderStick("cargo", tmp_path / "stick", is_read_only=True))
    any_host.run(["cp", f"{place}/cargo", "/srv/cargo"])
    any_host.run(["sync"])
    any_host.yank()
    assert any_host.run(["test", "-e", f"{place}/cargo"], check=False).code != 0

    any_host.kill()
    with pytest.raises(BedError):
        any_host.run(["true"])
    any_host.boot()
    any_host.get("/srv/cargo", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "cargo"
    any_host.stop()
    any_host.boot()
    assert any_host.run(["cat", "/srv/deep/note"]).out == "from outside"
