"""`appliance config`: check and show change nothing, apply says what it did and what is still to be done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.host.maintenance import configuration_change
from appliance.host.playbook.ansible_run import PlaybookCounts
from appliance.host.site.config import FIELDS, SiteConfig
from appliance.serve.supervisor import run_dir
from tests.appliance.sim_host import SimHost, new_host, write_configuration
from tests.attacks.harness import Answer, command
from tests.json_schema import is_valid


class Quiet:
    """Stands in for services that always succeed."""

    def try_candidate(self, *_: object) -> str:
        return "Paris"

    def enable(self, *_: object) -> None:
        pass

    def follow(self, *_: object) -> bool:
        return True

    def retire(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    made = new_host(tmp_path_factory.mktemp("config"))
    made.install()
    return made


@pytest.fixture(autouse=True)
def rendered(host: SimHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def render(prefix: Any, release: Path, bundle: Any, site: SiteConfig, *_: object) -> PlaybookCounts:
        return PlaybookCounts(6, write_configuration(prefix, release, bundle, site))

    monkeypatch.setattr(configuration_change, "render", render)
    monkeypatch.setattr(configuration_change, "NoServices", lambda _: Quiet())
    yield
    host.prefix.site_file.write_text("")
    assert config(host, "apply").code == 0


def config(host: SimHost, *words: str | Path) -> Answer:
    return command("config", *words, "--prefix", host.prefix.root)


def test_check_names_every_fault_with_its_line_and_column_and_exits_2(host: SimHost, tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("port: 70000\nslots: 2\nport: 1\n")
    found = config(host, "check", path)
    assert (found.code, found.out) == (2, "")
    assert f"error: {path}:1:7 field port: refused (site.refused)" in found.talk
    assert f"error: {path}:3:1 field port: refused (site.refused)" in found.talk
    answer = json.loads(config(host, "check", path, "--json").out)
    assert [one["subject"] for one in answer["errors"]] == [f"{path}:1:7 field port", f"{path}:3:1 field port"]


def test_check_of_a_right_file_shows_how_to_apply_it(host: SimHost, tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("context: 4096\n")
    found = config(host, "check", path)
    assert found.code == 0
    assert "note: context 4096 is more than the 64 of model toy: 64 is used" in found.out
    assert f"cp {path} {host.prefix.site_file} && appliance config apply{host.prefix.option}" in found.out
    assert config(host, "check", tmp_path / "none.yaml").code == 2


def test_check_without_a_host_checks_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("port: 8500\n")
    found = command("config", "check", path, "--prefix", tmp_path / "nowhere")
    assert (found.code, found.out) == (0, f"{path} is right\n")
    assert not (tmp_path / "nowhere").exists()


def test_show_has_every_field_with_its_place_and_what_serves(host: SimHost) -> None:
    host.prefix.site_file.write_text("# ours\nport: 8500\n")
    found = config(host, "show")
    rows = {line.split()[0]: line.split()[1:] for line in found.out.splitlines()}
    assert rows["port"] == ["8500", f"{host.prefix.site_file}:2", "8443"]
    assert rows["slots"] == ["-", "the", "bundle", "-"]
    assert set(rows) == {"field", *(field.name for field in FIELDS)}
    assert "not applied yet" in found.talk
    fields = json.loads(config(host, "show", "--json").out)["fields"]
    assert {field["name"]: field["value"] for field in fields}["port"] == 8500


def test_schema_is_printed_for_editors(host: SimHost) -> None:
    schema = json.loads(config(host, "show", "--schema").out)
    assert is_valid({"port": 8500}, schema)
    assert not is_valid({"port": "8500"}, schema)


def test_apply_names_what_it_changed_and_a_second_one_changes_nothing(host: SimHost) -> None:
    host.prefix.site_file.write_text("port: 8500\nslots: 1\n")
    found = config(host, "apply")
    assert found.code == 0
    assert "changed    config/engine-toy.json" in found.out.splitlines()
    assert "answer     Paris" in found.out.splitlines()
    assert "no file had to be changed" in config(host, "apply").out
    assert "it is what serves" in config(host, "check").out
    assert command("status", "--prefix", host.prefix.root).code == 0


def test_apply_says_that_a_running_serve_has_to_be_started_again(host: SimHost) -> None:
    host.prefix.site_file.write_text("port: 8501\n")
    with run_dir.hold(host.prefix), run_dir.sockets(host.prefix):
        found = config(host, "apply")
    assert f"hint: end it, then start it again: appliance serve{host.prefix.option}" in found.talk


def test_apply_where_nothing_is_installed_makes_no_folder(tmp_path: Path) -> None:
    # On a whole machine: `sudo appliance config apply`.
    found = command("config", "apply", "--prefix", tmp_path / "nowhere")
    assert (found.code, (tmp_path / "nowhere").exists()) == (2, False)
