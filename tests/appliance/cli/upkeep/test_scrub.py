"""`appliance scrub` reads the models again, stops one that differs, and `status` says so until an install."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.host.install.sealing import seal_models
from appliance.host.models.incident import WORDS
from appliance.host.release.release import Release
from appliance.serve.unit_programs import scrub as scrub_program
from appliance.serve.unit_programs import startup
from tests.appliance.sim_host import new_host
from tests.attacks.harness import Answer, command


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    monkeypatch.setattr("appliance.cli.upkeep.scrub.become_idle", lambda: None)
    return new_host(tmp_path).install()


def scrub(release: Release, *words: str) -> Answer:
    return command("scrub", "--prefix", release.prefix.root, *words)


def flip(release: Release) -> Path:
    path = release.model_file(release.contents.models[0])[1]
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    path.chmod(0o444)
    return path


def test_right_host_ends_with_0_and_status_names_the_time(release: Release) -> None:
    done = scrub(release)
    assert done.code == 0
    assert "as they were signed" in done.out
    shown = command("status", "--prefix", release.prefix.root)
    assert [line for line in shown.out.splitlines() if line.startswith("scrub ") and line.endswith("no fault")]


def test_changed_model_ends_with_9_and_stays_stopped_when_its_bytes_are_back(release: Release) -> None:
    path = release.model_file(release.contents.models[0])[1]
    good = path.read_bytes()
    flip(release)
    done = scrub(release)
    assert done.code == 9
    assert f"toy  STOPPED: {WORDS['bytes']}" in done.out
    assert command("status", "--prefix", release.prefix.root).code == 3
    path.chmod(0o644)
    path.write_bytes(good)
    path.chmod(0o444)
    shown = command("status", "--prefix", release.prefix.root, "--json")
    assert shown.code == 9
    [error] = json.loads(shown.out)["errors"]
    assert (error["code"], error["subject"]) == ("model.incident", "toy")
    assert "appliance install" in error["hint"]
    # What an install does once it has compared every byte.
    seal_models(release.prefix, release.path, release.contents)
    assert command("status", "--prefix", release.prefix.root).code == 0


def test_answer_in_json_has_what_was_read_and_what_was_found(release: Release) -> None:
    flip(release)
    answer = json.loads(scrub(release, "--json").out)
    [model] = answer["models"]
    assert (model["model"], answer["exit_code"], model["incident"]["cause"]) == ("toy", 9, "bytes")
    assert [error["code"] for error in answer["errors"]] == ["model.incident"]


def test_unknown_model_is_a_wrong_command(release: Release) -> None:
    done = scrub(release, "--model", "none")
    assert done.code == 2
    assert "one of toy" in done.talk
    assert scrub(release, "--model", "toy").code == 0


def test_program_of_the_unit_ends_with_the_same_code(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub_program, "open_current", lambda *_: release)
    assert startup.run(lambda: scrub_program.start(release.prefix)) == 0
    flip(release)
    assert startup.run(lambda: scrub_program.start(release.prefix)) == 9
