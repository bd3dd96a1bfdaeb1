"""`appliance gc` shows what goes and why the rest stays, and pins by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.appliance.host.held_releases import empty_host, hold_release
from tests.attacks.harness import command


@pytest.fixture
def releases(tmp_path: Path) -> tuple[Path, ...]:
    host = empty_host(tmp_path)
    return tuple(hold_release(host, f"1.0.{number}", serves=number == 3) for number in (1, 2, 3))


def run(releases: tuple[Path, ...], *words: str) -> tuple[int, str, str]:
    answer = command("gc", "--prefix", releases[0].parents[3], *words)
    return answer.code, answer.out, answer.talk


def test_dry_run_names_what_would_go_and_removes_nothing(releases: tuple[Path, ...]) -> None:
    code, out, _ = run(releases, "--dry-run")
    assert code == 0
    assert f"keeps      {releases[2].name}  serves" in out
    assert f"would go   release {releases[0].name}" in out
    assert "would free" in out
    assert all(path.is_dir() for path in releases)


def test_it_removes_and_says_how_much_that_freed(releases: tuple[Path, ...]) -> None:
    code, out, talk = run(releases, "--json")
    assert code == 0, talk
    value = json.loads(out)
    assert value["releases"] == [releases[0].name]
    assert [one["release"] for one in value["kept"]] == [releases[1].name, releases[2].name]
    assert len(value["models"]) == 1
    assert value["bytes"] > 0
    assert value["dry_run"] is False
    assert [path.is_dir() for path in releases] == [False, True, True]


def test_number_of_kept_releases_is_the_sites(releases: tuple[Path, ...]) -> None:
    site = releases[0].parents[3] / "etc/appliance/site.yaml"
    site.write_text("keep: 2\n")
    assert json.loads(run(releases, "--json")[1])["releases"] == []
    site.write_text("keep: none\n")
    assert run(releases)[0] == 2


def test_pin_keeps_and_unpin_lets_go(releases: tuple[Path, ...]) -> None:
    assert run(releases, "--pin", releases[0].name)[0] == 0
    assert json.loads(run(releases, "--json")[1])["releases"] == []
    assert run(releases, "--unpin", releases[0].name)[0] == 0
    assert json.loads(run(releases, "--json")[1])["releases"] == [releases[0].name]
    code, _, talk = run(releases, "--pin", "1.0.0-0123456789ab")
    assert code == 2
    assert "release.unknown" in talk


def test_without_a_release_it_is_a_wrong_command(tmp_path: Path) -> None:
    answer = command("gc", "--prefix", tmp_path / "nothing")
    assert answer.code == 2
    assert "release.none" in answer.talk
    assert not (tmp_path / "nothing").exists()
