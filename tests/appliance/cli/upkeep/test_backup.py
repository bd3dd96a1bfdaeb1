"""`appliance backup` and `appliance restore`: shown first, asked once, and finished after a cut."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from appliance.cli.upkeep import restore as restore_command
from appliance.host.change.change_file import read_change
from appliance.host.layout.install_lock import hold
from appliance.host.layout.prefix import Prefix
from appliance.host.maintenance import restore as restore_module
from appliance.host.maintenance.restore import restore
from appliance.host.maintenance.restore_stage import restore_folder, stage
from appliance.host.site.api_keys import AccessStore
from appliance.keys.signers.host_key import make_host_key
from signing.errors import ApplianceError, ApplyBrokenError, DamagedError
from tests.appliance.host.held_releases import empty_host, hold_release
from tests.appliance.sim_host import SimHost
from tests.attacks.harness import Answer, command
from tests.toy import NOW


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimHost:
    monkeypatch.setattr(restore_module, "open_current", lambda *_: None)
    made = empty_host(tmp_path)
    hold_release(made, "1.0.1", serves=True)
    make_host_key(made.prefix.trust)
    AccessStore(made.prefix.access).grant("ada", NOW)
    made.prefix.site_file.write_text("port: 8444\n")
    return made


@pytest.fixture
def backup(host: SimHost, tmp_path: Path) -> Path:
    answer = command("backup", tmp_path, "--prefix", host.prefix.root, "--json")
    assert answer.code == 0, answer.talk
    return Path(json.loads(answer.out)["path"])


def run(host: SimHost, *words: str | Path) -> Answer:
    return command("restore", *words, "--prefix", host.prefix.root)


def test_backup_names_what_it_holds_and_the_key_to_write_down(host: SimHost, tmp_path: Path) -> None:
    answer = command("backup", tmp_path, "--prefix", host.prefix.root)
    assert answer.code == 0
    assert answer.out.startswith(f"wrote {tmp_path}/backup-")
    assert make_host_key(host.prefix.trust).fingerprint in answer.talk
    assert "holds      access.db" in answer.talk
    assert command("backup", tmp_path / "none", "--prefix", host.prefix.root).code == 2
    assert command("backup", tmp_path, "--prefix", tmp_path / "none").code == 2


def test_restore_shows_everything_and_does_nothing_without_a_yes(host: SimHost, backup: Path) -> None:
    host.prefix.site_file.write_text("port: 1\n")
    host.prefix.access.unlink()
    answer = run(host, backup)
    assert (answer.code, "restore.unasked" in answer.talk) == (2, True)
    assert "key        ada is added" in answer.talk
    assert "is replaced by that of the backup" in answer.talk
    assert host.prefix.site_file.read_text() == "port: 1\n"
    assert not restore_folder(host.prefix).exists()
    answer = run(host, backup, "--yes", "--json")
    assert answer.code == 0, answer.talk
    assert json.loads(answer.out)["keys"] == {"added": ["ada"], "revoked": []}
    assert host.prefix.site_file.read_text() == "port: 8444\n"
    host.prefix.site_file.write_text("port: 1\n")
    assert f"appliance config apply --prefix {host.prefix.root}" in run(host, backup, "--yes").talk
    assert "config apply" not in run(host, backup, "--yes").talk, "the file is the same by now"


def test_backup_of_another_host_is_taken_with_its_fingerprint(host: SimHost, backup: Path) -> None:
    fingerprint = make_host_key(host.prefix.trust).fingerprint
    (host.prefix.trust / "host.pem").unlink()
    make_host_key(host.prefix.trust)
    assert run(host, backup, "--yes").code == 4
    assert not restore_folder(host.prefix).exists()
    answer = run(host, backup, "--from-host", fingerprint, "--yes")
    assert answer.code == 0, answer.talk
    assert f"of the host with key {fingerprint}" in answer.talk


def test_restore_that_was_cut_off_is_finished_without_a_question(host: SimHost, backup: Path) -> None:
    class Cut(BaseException):
        pass

    def cut(step: str, when: str) -> None:
        if (step, when) == ("keys", "after"):
            raise Cut

    with hold(host.prefix), pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        patch.setattr("appliance.host.change.step_runner.StepRunner._undo", lambda *_: None)
        restore(stage(host.prefix, backup, [], NOW), lambda: NOW, cut)
    assert run(host, backup, "--yes").code == 0, "the same command again supersedes it"
    with hold(host.prefix), pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        patch.setattr("appliance.host.change.step_runner.StepRunner._undo", lambda *_: None)
        restore(stage(host.prefix, backup, [], NOW), lambda: NOW, cut)
    answer = run(host, "--resume")
    assert answer.code == 0, answer.talk
    assert read_change(host.prefix) is None
    assert run(host, "--resume").code == 2


def test_wrong_words_are_wrong_commands(host: SimHost, tmp_path: Path) -> None:
    assert run(host).code == 2
    assert run(host, tmp_path).code == 2
    assert "error: --from-host: " in run(host, tmp_path, "--from-host", "abc").talk
    assert command("restore", tmp_path, "--prefix", tmp_path / "none").code == 4


def test_what_happens_during_the_question_is_not_lost(
    host: SimHost, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is free while a person thinks: another one looks at the same backup, and a key is revoked."""

    def ask(_host: Prefix) -> None:
        monkeypatch.setattr(restore_command, "_ask", refuse)
        AccessStore(host.prefix.access).revoke("ada", NOW)
        assert run(host, backup).code == 1
        monkeypatch.setattr(restore_module, "read_site", fail)

    def refuse(_host: Prefix) -> None:
        raise ApplianceError("restore.refused", "x", expected="x", found="x")

    def fail(_path: Path) -> None:
        raise DamagedError("site.damaged", "x", expected="x", found="x")

    monkeypatch.setattr(restore_command, "_ask", ask)
    answer = run(host, backup)
    assert (answer.code, "restore.gate" in answer.talk) == (7, True), answer.talk
    assert [(key.name, key.is_revoked) for key in AccessStore(host.prefix.access).list()] == [("ada", True)]


def test_backup_that_is_another_one_after_the_question_is_refused(
    host: SimHost, backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.prefix.site_file.write_text("port: 1\n")
    shown = backup.rename(tmp_path / "shown")
    other = Path(json.loads(command("backup", tmp_path, "--prefix", host.prefix.root, "--json").out)["path"])

    def swap(_host: Prefix) -> None:
        shutil.rmtree(shown)
        other.rename(shown)

    host.prefix.site_file.write_text("port: 2\n")
    monkeypatch.setattr(restore_command, "_ask", swap)
    answer = run(host, shown)
    assert (answer.code, "restore.changed" in answer.talk) == (2, True), answer.talk
    assert host.prefix.site_file.read_text() == "port: 2\n"
    assert not restore_folder(host.prefix).exists()


def test_keys_stay_where_the_copy_of_them_is_gone(host: SimHost, backup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold(host.prefix):
        staged = stage(host.prefix, backup, [], NOW)
        shutil.rmtree(restore_folder(host.prefix))
        with pytest.raises(ApplyBrokenError, match=r"restore\.not-undone"):
            restore(staged, lambda: NOW)
    assert [key.name for key in AccessStore(host.prefix.access).list()] == ["ada"]
