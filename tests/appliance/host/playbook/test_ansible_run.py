"""Ansible's part: files as the site decided, a second run that changes nothing, and failures that name the task."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta, timezone

import pytest

from appliance.host.layout.install_lock import hold
from appliance.host.playbook.ansible_run import KEPT_RUNS, PlaybookCounts, render
from appliance.host.process.programs import Programs
from appliance.host.site.config import ModelChoice, SiteConfig, read_site
from appliance.host.tls.files import TlsFiles
from appliance.resources import playbooks_path
from bundles.progress import Progress
from signing.errors import ApplyRestoredError
from tests.appliance.sim_host import SimHost, new_host

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    # A space in the path is allowed, so everything here is done with one.
    made = new_host(tmp_path_factory.mktemp("a host"))
    made.prefix.create()
    release = made.prefix.releases / "r"
    (release / "venv" / "bin").mkdir(parents=True)
    (release / "config").mkdir()
    (release / "playbooks").symlink_to(playbooks_path())
    # The tests' own environment stands for the release's.
    python = release / "venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return made


def run(host: SimHost, site: SiteConfig, minute: int, events: list[Progress] | None = None) -> PlaybookCounts:
    release = host.prefix.releases / "r"
    with hold(host.prefix) as lock:
        programs = Programs(host.prefix.scratch, lock)
        on_progress = (events if events is not None else []).append
        now = NOW + timedelta(minutes=minute)
        return render(host.prefix, release, host.verify().value, site, programs, now, on_progress)


@pytest.mark.ci
def test_first_run_writes_what_is_needed_and_the_second_changes_nothing(
    host: SimHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    events: list[Progress] = []
    choice = ModelChoice("E2", 60, pin=True)
    tls, cors = TlsFiles("/etc/a.pem", "/etc/a.key"), ("https://app.example",)
    site = SiteConfig("0.0.0.0", 9000, 3, 1 << 20, threads=2, models={"toy": choice}, tls=tls, cors=cors)
    first = run(host, site, 0, events)
    second = run(host, site, 1)
    assert first.changed > 0
    assert second == PlaybookCounts(first.ok, 0)
    config = host.prefix.releases / "r" / "config"
    engine = json.loads((config / "engine-toy.json").read_text())
    # No site can ask for more context than was signed.
    assert (engine["name"], engine["model"], engine["slots"], engine["context"]) == (
        "toy",
        "models/toy/toy.gguf",
        3,
        64,
    )
    assert (engine["threads"], engine["min_level"], engine["keep_alive"], engine["pin"]) == (2, "E2", 60, True)
    gateway = json.loads((config / "gateway.json").read_text())
    assert (gateway["bind"], gateway["port"], gateway["models"]) == ("0.0.0.0", 9000, ["toy"])
    assert (gateway["tls"], gateway["cors"]) == (tls.to_json(), list(cors))
    assert gateway["release"]["manifest"] == host.verify().value.manifest
    run(host, SiteConfig(), 2)
    plain = json.loads((config / "gateway.json").read_text())
    assert (plain["bind"], plain["tls"], plain["cors"]) == ("127.0.0.1", {}, [])
    # A new site file holds the defaults, not the values of this run.
    assert read_site(host.prefix.site_file).port == 8443
    assert events[-1].done == events[-1].total > 5
    left = b"".join(path.read_bytes() for path in host.prefix.runs.rglob("*") if path.is_file())
    assert b"hunter2" not in left
    assert not list(host.prefix.runs.glob("*/env"))
    assert not list(host.prefix.runs.glob("*/artifacts/*/command"))


@pytest.mark.ci
def test_failed_task_is_named_with_its_message(host: SimHost) -> None:
    config = host.prefix.releases / "r" / "config"
    aside = config.rename(config.with_name("aside"))
    for number in range(KEPT_RUNS + 2):
        (host.prefix.runs / f"2025010{number}T000000.000000Z").mkdir()
    try:
        with pytest.raises(ApplyRestoredError) as caught:
            run(host, SiteConfig(), 3)
    finally:
        aside.rename(config)
    assert caught.value.exit_code == 7
    assert caught.value.subject == "Write the configuration of each engine, and its unit"
    assert "config" in caught.value.found
    assert len(list(host.prefix.runs.iterdir())) == KEPT_RUNS
