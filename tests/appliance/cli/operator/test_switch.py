"""A person stages a release in the day and switches to it in the window; the answers say what waits, and for what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.cli.operator import install as install_command
from appliance.cli.operator import switch as switch_command
from tests.appliance.sim_host import build_bundle
from tests.appliance.sim_site import Site, new_site
from tests.attacks.harness import Answer, command


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    site = new_site(tmp_path, monkeypatch)
    for module in (install_command, switch_command):
        monkeypatch.setattr(module, "read_host", lambda *_arguments, **_options: site.machine)
    return site


def type_install(site: Site, source: Path, *words: str) -> Answer:
    # appliance install /media/stick --stage
    options = ["--prefix", str(site.sim.prefix.root), "--trust", str(site.sim.workspace.root_file)]
    return command("install", str(source), *words, *options)


def type_switch(site: Site, *words: str) -> Answer:
    # appliance switch, or appliance switch 1.1.0-3f2a9c0b7d15
    return command("switch", *words, "--prefix", str(site.sim.prefix.root))


def test_staging_and_switching_say_what_comes_next(site: Site) -> None:
    assert type_install(site, site.sim.source).code == 0
    staged = type_install(site, build_bundle(site.sim.workspace, "1.1.0", "two"), "--stage")
    assert staged.code == 0
    [line] = [line for line in staged.out.splitlines() if line.startswith("staged")]
    typed = line.partition("appliance switch ")[2]
    name = typed.split()[0]
    assert f"--prefix {site.sim.prefix.root}" in typed
    assert "waits for the switch" in staged.out
    done = type_switch(site, name, "--json")
    assert done.code == 0
    assert json.loads(done.out)["state"] == "trying"
    again = type_switch(site, "--json")
    assert again.code == 2
    assert json.loads(again.out)["errors"][0]["code"] == "switch.not-staged"


def test_first_release_that_was_staged_serves_after_the_switch(site: Site) -> None:
    assert type_install(site, site.sim.source, "--stage").code == 0
    done = type_switch(site)
    assert done.code == 0
    assert "it serves now" in done.out
    assert "nothing changed" not in done.out


def test_staging_a_complete_release_names_a_command_that_works(site: Site) -> None:
    assert type_install(site, site.sim.source).code == 0
    again = type_install(site, site.sim.source, "--stage")
    assert (again.code, "serves already" in again.out) == (0, True)
    newer = build_bundle(site.sim.workspace, "1.1.0", "two")
    assert type_install(site, newer).code == 0
    older = type_install(site, site.sim.source, "--stage", "--older")
    [line] = [line for line in older.out.splitlines() if line.startswith("staged")]
    name = line.partition("appliance switch ")[2].split()[0]
    assert type_switch(site, name).code == 0
    assert site.sim.prefix.current.resolve().name == name
