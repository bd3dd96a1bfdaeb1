"""`appliance support`: shown first, asked for, and without one private word of the host, wherever it was planted."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from appliance.host.change.journal import FAILED, Journal
from appliance.host.engine.process import socket_path
from appliance.host.engine.state import STOPPED, EngineState, write_state
from appliance.host.install import steps as install_steps
from appliance.host.layout.prefix import Prefix
from appliance.host.maintenance import restore
from appliance.host.maintenance.support.grammar import FACTS, MAX_BYTES
from appliance.host.maintenance.support.private_words import WORDS_FILE, private_words
from appliance.host.site.api_keys import AccessStore
from appliance.serve.supervisor import run_dir
from signing.roles import STATUSES
from tests.appliance.sim_host import SimHost, new_host
from tests.attacks.harness import command
from tests.toy import NOW

CANARY = "canary-77aa"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    made = new_host(tmp_path_factory.mktemp(f"support-{CANARY}"))
    made.install()
    return made


def tree(folder: Path) -> dict[str, tuple[int, float]]:
    found = {str(path): path.lstat() for path in folder.rglob("*")}
    return {path: (status.st_size, status.st_mtime) for path, status in found.items()}


def test_file_is_written_after_its_content_was_shown(host: SimHost, tmp_path: Path) -> None:
    before = tree(host.prefix.root)
    found = command("support", tmp_path, "--prefix", host.prefix.root, "--yes")
    assert (found.code, found.out.startswith("wrote ")) == (0, True)
    assert tree(host.prefix.root) == before
    [path] = tmp_path.iterdir()
    assert re.fullmatch(r"support-[0-9T]+Z\.json", path.name)
    value = json.loads(path.read_bytes())
    assert host.prefix.current.resolve().name.endswith(value["release"]["manifest"][:12])
    for name in value:
        assert re.search(rf"^{name}", found.talk, re.MULTILINE), name


def test_without_a_terminal_and_without_yes_nothing_is_written(host: SimHost, tmp_path: Path) -> None:
    found = command("support", tmp_path, "--prefix", host.prefix.root)
    assert (found.code, list(tmp_path.iterdir())) == (2, [])


def test_canary_planted_everywhere_is_neither_in_the_file_nor_shown(
    host: SimHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = host.prefix
    monkeypatch.setenv("USER", CANARY)
    prefix.site_file.write_text(f"# {CANARY}\nsite: {CANARY}\n")
    AccessStore(prefix.access).grant(CANARY, NOW)
    prefix.default_key.write_text(f"{CANARY}-{CANARY}-{CANARY}\n")
    Journal(prefix.journal / "install.jsonl", lambda: NOW).write(CANARY, CANARY, FAILED, CANARY)
    (prefix.etc / CANARY).write_text(CANARY)
    with run_dir.hold(prefix), run_dir.sockets(prefix) as folder:
        write_state(socket_path(folder, "toy"), EngineState(STOPPED, CANARY))
        found = command("support", tmp_path / "file.json", "--prefix", prefix.root, "--yes")
    assert found.code == 0, found.talk
    data = (tmp_path / "file.json").read_bytes()
    assert CANARY.encode() not in data
    assert CANARY not in found.talk
    assert len(data) < MAX_BYTES
    value = json.loads(data)
    assert (value["site"]["has_name"], value["engines"][0]["reason"], value["keys"]["count"]) == (True, "other", 1)
    assert value["withheld"] == ["journal.code"]


def test_word_that_the_operator_has_listed_ends_the_writing(host: SimHost, tmp_path: Path) -> None:
    manifest = str(json.loads(command("status", "--prefix", host.prefix.root, "--json").out)["manifest"])
    words = host.prefix.etc / WORDS_FILE
    words.write_text(f"\nshort\n{manifest[:9]}\n")
    line = ("support", tmp_path, "--prefix", host.prefix.root, "--yes")
    found = command(*line)
    assert (found.code, list(tmp_path.iterdir())) == (4, [])
    assert manifest[:9] not in found.talk
    assert "--without release.manifest" in found.talk
    assert command(*line, "--without", "release.manifest").code == 0
    words.unlink()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", None], ids=["mark", "other-bytes", "folder"])
def test_list_of_words_that_cannot_be_read_never_counts_as_an_empty_one(
    host: SimHost, tmp_path: Path, encoding: str | None
) -> None:
    manifest = str(json.loads(command("status", "--prefix", host.prefix.root, "--json").out)["manifest"])
    words = tmp_path / WORDS_FILE
    words.mkdir() if encoding is None else words.write_bytes(f"{manifest[:9]}\n".encode(encoding))
    (host.prefix.etc / WORDS_FILE).symlink_to(words)
    try:
        found = command("support", tmp_path / "file.json", "--prefix", host.prefix.root, "--yes")
    finally:
        (host.prefix.etc / WORDS_FILE).unlink()
    assert (found.code, (tmp_path / "file.json").exists()) == (4 if encoding == "utf-8-sig" else 1, False)


def test_words_of_the_file_cover_every_step_and_every_status() -> None:
    steps = {*(step.name for step in install_steps.INSTALL_STEPS), *(step.name for step in restore.STEPS)}
    steps |= {"config", "gc", "uninstall", "rollback", "return"}
    assert steps <= set(FACTS["journal[].step"].words)
    assert set(STATUSES) <= set(FACTS["release.target_status"].words)


def test_fact_that_does_not_exist_is_a_wrong_command(host: SimHost, tmp_path: Path) -> None:
    found = command("support", tmp_path, "--prefix", host.prefix.root, "--without", "release.colour", "--yes")
    assert (found.code, list(tmp_path.iterdir())) == (2, [])


def test_host_on_which_nothing_is_right_still_writes_its_file(tmp_path: Path) -> None:
    prefix = Prefix.at(tmp_path / "broken")
    prefix.create()
    prefix.current.write_text("no link")
    (prefix.state / "change").write_text("nonsense")
    (prefix.trust / "floors.json").write_text("nonsense")
    prefix.site_file.write_text("a: [")
    found = command("support", tmp_path / "file.json", "--prefix", prefix.root, "--yes")
    assert found.code == 0, found.talk
    codes = {one["code"] for one in json.loads((tmp_path / "file.json").read_bytes())["problems"]}
    assert {"release.current", "change.unreadable"} <= codes


def test_names_of_machines_are_found_where_the_system_keeps_them(tmp_path: Path) -> None:
    files = {
        "etc/hostname": "prodhost7\n",
        "etc/hosts": "127.0.0.1 localhost\n10.0.0.1 ledger.example.corp ledgers # old\n",
        "etc/resolv.conf": "search inside.example\n",
        "etc/machine-id": "00112233445566778899aabbccddeeff\n",
        "sys/class/net/eth0/address": "52:54:00:12:34:56\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = {word.text for word in private_words(Prefix.at(tmp_path / "host"), tmp_path)}
    expected = {"prodhost7", "ledger.example.corp", "ledgers", "inside.example", "example", "52:54:00:12:34:56"}
    assert expected <= found
    assert not {"localhost", "", "corp"} & found
    assert os.uname().nodename.lower() not in found


def test_keys_that_this_user_may_not_read_are_not_called_damaged(
    host: SimHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def refuse(path: Path, *args: Any, **options: Any) -> Any:
        if path == host.prefix.access:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *args, **options)

    AccessStore(host.prefix.access)
    monkeypatch.setattr(Path, "open", refuse)
    assert command("support", tmp_path / "file.json", "--prefix", host.prefix.root, "--yes").code == 0
    value = json.loads((tmp_path / "file.json").read_bytes())
    assert {"section": "keys", "code": "system.eacces", "exit_code": 1} in value["problems"]
