"""Where a host stands: good, trying, at work or interrupted, each with the exact next command."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path

import pytest

from appliance.host.change.change_file import (
    INSTALL,
    REMOVING,
    RESTORE,
    RESTORING,
    ROLLBACK,
    SWITCHING,
    TRYING,
    UNINSTALL,
    HostChange,
    change_path,
    write_change,
)
from appliance.host.change.journal import DONE, FAILED, STARTED, Journal
from appliance.host.change.way_back import point_previous
from appliance.host.layout.install_lock import hold
from appliance.host.layout.places import STAGED_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.maintenance.host_life import read_life
from tests.appliance.sim_host import SimHost, new_host
from tests.attacks.harness import command

NEW, OLD, SINCE = "1.1.0-0123456789ab", "1.0.0-ba9876543210", "2026-01-31T12:00:00Z"


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    made = Prefix.at(tmp_path / "host")
    made.create()
    return made


def journal(prefix: Prefix) -> Journal:
    return Journal(prefix.journal / "install.jsonl", lambda: datetime(2026, 1, 31, tzinfo=timezone.utc))


def test_host_without_a_change_is_good(prefix: Prefix) -> None:
    life = read_life(prefix)
    assert (life.state, life.change, life.next_command, life.previous, life.problems) == ("good", None, "", "", ())
    assert (life.incident, life.cut_off) == (None, None)


def test_releases_that_wait_for_a_switch_are_named(prefix: Prefix) -> None:
    for name in (NEW, OLD):
        (prefix.releases / name).mkdir(parents=True)
    (prefix.releases / NEW / STAGED_FILE).touch()
    life = read_life(prefix)
    assert (life.state, life.staged) == ("good", (NEW,))


def test_trying_is_no_problem_and_names_the_release_to_return_to(prefix: Prefix) -> None:
    point_previous(prefix, f"releases/{OLD}")
    write_change(prefix, HostChange(INSTALL, NEW, OLD, TRYING, SINCE))
    life = read_life(prefix)
    assert (life.state, life.previous, life.problems) == ("trying", OLD, ())


@pytest.mark.parametrize(
    ("change", "command_line"),
    [
        (HostChange(INSTALL, NEW, OLD, SWITCHING, SINCE), f"appliance switch {NEW}"),
        (HostChange(INSTALL, NEW, NEW, SWITCHING, SINCE), "appliance config apply"),
        (HostChange(ROLLBACK, OLD, NEW, SWITCHING, SINCE), f"appliance rollback {OLD}"),
        (HostChange(UNINSTALL, "", NEW, REMOVING, SINCE), "appliance uninstall"),
        (HostChange(UNINSTALL, "", NEW, REMOVING, SINCE, purge="yes"), "appliance uninstall --purge"),
        (HostChange(RESTORE, "", NEW, RESTORING, SINCE), "appliance restore --resume"),
    ],
)
def test_interrupted_change_is_drift_with_the_exact_command(
    prefix: Prefix, change: HostChange, command_line: str
) -> None:
    write_change(prefix, change)
    life = read_life(prefix)
    assert (life.state, life.next_command) == ("unfinished", command_line + prefix.option)
    [problem] = life.problems
    assert (problem.exit_code, problem.code) == (9, "change.unfinished")
    assert problem.hint == life.next_command


def test_change_that_a_process_works_on_is_no_problem(prefix: Prefix) -> None:
    write_change(prefix, HostChange(INSTALL, NEW, OLD, SWITCHING, SINCE))
    with hold(prefix):
        status = (prefix.journal / "lock").stat()
        place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        locks = prefix.root / "locks"
        locks.write_text(f"1: FLOCK  ADVISORY  WRITE 17 {place} 0 EOF\n")
        life = read_life(prefix, locks)
        assert (life.state, life.problems) == ("at work", ())
        locks.write_text(
            f"1: -> FLOCK  ADVISORY  WRITE 17 {place} 0 EOF\n2: FLOCK  ADVISORY  WRITE 18 {place}9 0 EOF\n"
        )
        assert read_life(prefix, locks).state == "unfinished"


def test_record_that_breaks_the_grammar_is_drift(prefix: Prefix) -> None:
    change_path(prefix).write_text("op=install\n")
    assert [one.code for one in read_life(prefix).problems] == ["change.unreadable"]


def test_record_that_this_user_may_not_read_is_no_drift(prefix: Prefix, monkeypatch: pytest.MonkeyPatch) -> None:
    write_change(prefix, HostChange(INSTALL, NEW, OLD, TRYING, SINCE))
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    real = os.open

    def refuse(path: object, *more: object, **words: object) -> int:
        if path == change_path(prefix):
            raise PermissionError(13, "Permission denied")
        return real(path, *more, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    life = read_life(prefix)
    assert (life.state, life.problems) == ("unseen", ())


def test_last_failed_step_is_the_incident_and_an_open_one_was_cut_off(prefix: Prefix) -> None:
    log = journal(prefix)
    log.write(NEW, "gate", STARTED)
    log.write(NEW, "gate", FAILED, "gate.failed")
    log.write(NEW, "import", STARTED)
    life = read_life(prefix)
    assert (life.incident and life.incident.note, life.cut_off and life.cut_off.step) == ("gate.failed", "import")
    assert life.next_command == f"appliance install STICK{prefix.option}"
    log.write(NEW, "import", DONE)
    assert read_life(prefix).cut_off is None


def test_return_from_a_release_on_trial_is_the_incident(prefix: Prefix) -> None:
    log = journal(prefix)
    log.write(NEW, "gate", FAILED, "gate.failed")
    log.write(OLD, "return", STARTED, f"from {NEW}")
    log.write(OLD, "return", DONE, f"from {NEW}")
    log.write(NEW, "import", DONE)
    incident = read_life(prefix).incident
    assert incident is not None
    assert (incident.step, incident.release, incident.note) == ("return", OLD, f"from {NEW}")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    made = new_host(tmp_path_factory.mktemp("life"))
    made.install()
    return made


def test_status_shows_the_state_and_ends_with_9_where_a_change_was_interrupted(host: SimHost) -> None:
    words = ("status", "--prefix", host.prefix.root)
    good = command(*words)
    assert (good.code, "state      good: nothing is unfinished" in good.out) == (0, True)
    write_change(host.prefix, HostChange(INSTALL, NEW, OLD, SWITCHING, SINCE))
    found = command(*words)
    assert found.code == 9
    assert f"next       appliance switch {NEW}{host.prefix.option}" in found.out.splitlines()
    answer = json.loads(command(*words, "--json").out)
    assert (answer["state"], answer["change"]["op"], answer["exit_code"]) == ("unfinished", "install", 9)
    change_path(host.prefix).unlink()


def test_status_of_a_host_without_a_release_names_the_interrupted_change(host: SimHost) -> None:
    write_change(host.prefix, HostChange(UNINSTALL, "", NEW, REMOVING, SINCE))
    link = os.readlink(host.prefix.current)
    host.prefix.current.unlink()
    found = command("status", "--prefix", host.prefix.root)
    assert found.code == 9
    assert f"hint: appliance uninstall{host.prefix.option}" in found.talk
    host.prefix.current.symlink_to(link)
    change_path(host.prefix).unlink()
