"""`config apply`: the new configuration serves, or the one from before does; also after a kill at any moment."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from appliance.host.change import way_back
from appliance.host.change.change_file import INSTALL, TRYING, HostChange, change_path, clear_change, write_change
from appliance.host.change.way_back import return_folder
from appliance.host.maintenance import configuration_change as program
from appliance.host.maintenance.configuration_change import (
    AppliedConfiguration,
    apply_configuration,
    finish_interrupted,
)
from appliance.host.models.seal import seal
from appliance.host.playbook.ansible_run import PlaybookCounts
from appliance.host.release.release import Release, open_current
from appliance.host.release.release_check import check_release
from appliance.host.site.config import SiteConfig, read_site
from signing.errors import (
    ApplianceError,
    ApplyBrokenError,
    ApplyRestoredError,
    BusyError,
    DamagedError,
    HostUnfitError,
    UsageError,
)
from tests.appliance.sim_card import CARD
from tests.appliance.sim_host import SimHost, new_host, write_configuration
from tests.appliance.sim_verity import SimVerity
from tests.toy import NOW

SCRIPT = Path(way_back.__file__).with_name("rollback.sh")


class Recorded:
    """Stands in for the services: it records each call, and fails in the one that a test has chosen."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failing = ""

    def _note(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failing.split():
            raise ApplianceError("engine.no-answer", name, expected="an answer", found="none", hint="look")

    def try_candidate(self, _release: Release, _on_progress: object) -> str:
        self._note("try_candidate")
        return "Paris"

    def enable(self, _release: Release) -> None:
        self._note("enable")

    def follow(self, _release: Release) -> bool:
        self._note("follow")
        return False

    def retire(self, _release: Release) -> None:
        self._note("retire")

    def restore(self, before: Path | None, tried: Path) -> None:
        assert before == tried
        self._note("restore")


class Host:
    """An installed host, whose configuration is rendered without Ansible."""

    def __init__(self, sim: SimHost, services: Recorded) -> None:
        self.sim, self.services, self.prefix, self.card = sim, services, sim.prefix, CARD

    def decide(self, text: str) -> None:
        self.prefix.site_file.write_text(text)

    def apply(self) -> AppliedConfiguration:
        self.services.calls.clear()
        return apply_configuration(self.prefix, self.card, lambda: datetime.now(timezone.utc), is_root=False)

    def served(self) -> tuple[int, int]:
        """The port and the context of the release, which must be complete and right."""
        release = open_current(self.prefix, NOW)
        check_release(release)
        gateway = json.loads((release.config / "gateway.json").read_bytes())
        return int(gateway["port"]), int(json.loads((release.config / "engine-toy.json").read_bytes())["context"])


def render(prefix: Any, release: Path, bundle: Any, site: SiteConfig, *_: Any) -> PlaybookCounts:
    return PlaybookCounts(6, write_configuration(prefix, release, bundle, site))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    sim = new_host(tmp_path_factory.mktemp("configuration"))
    sim.install()
    return sim


@pytest.fixture
def host(installed: SimHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    services = Recorded()
    monkeypatch.setattr(program, "render", render)
    monkeypatch.setattr(program, "NoServices", lambda _programs: services)
    found = Host(installed, services)
    yield found
    services.failing = ""
    found.decide("")
    found.apply()
    assert found.served() == (8443, 64)


def test_change_of_the_port_tries_no_engine_and_the_file_counts_as_applied(host: Host) -> None:
    host.decide("port: 8500\n")
    applied = host.apply()
    assert (applied.changed, applied.answer) == (("config/gateway.json",), "")
    assert host.services.calls == ["enable", "follow", "retire"]
    assert host.served() == (8500, 64)
    assert applied.release.facts.site == read_site(host.prefix.site_file).digest
    assert host.apply().changed == ()
    assert host.services.calls == []
    assert not change_path(host.prefix).exists()
    # Else a later rollback to this release would bring the old configuration with it.
    assert not return_folder(host.prefix, applied.release.path.name).exists()


def test_level_that_the_stored_model_does_not_have_is_refused_before_anything_changes(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.decide("models: {toy: {min_level: E4}}\n")
    with pytest.raises(HostUnfitError) as caught:
        host.apply()
    assert (caught.value.code, caught.value.subject) == ("model.level", "toy")
    assert host.services.calls == []
    verity = SimVerity(monkeypatch)
    release = open_current(host.prefix, NOW)
    file, path = release.model_file(release.contents.models[0])
    assert file.fsverity is not None
    assert seal(path, file.fsverity).is_sealed
    assert verity.enabled == 1
    assert host.apply().changed == ("config/engine-toy.json",)


def test_change_of_an_engine_tries_it_before_it_serves(host: Host) -> None:
    host.decide("slots: 1\n")
    applied = host.apply()
    assert (applied.changed, applied.answer) == (("config/engine-toy.json",), "Paris")
    assert host.services.calls == ["try_candidate", "enable", "follow", "retire"]


def test_change_of_the_site_s_name_alone_renders_the_same_and_is_applied(host: Host) -> None:
    host.decide("site: north\n")
    assert host.apply().changed == ()
    assert open_current(host.prefix, NOW).facts.site == read_site(host.prefix.site_file).digest


@pytest.mark.parametrize("failing", ["try_candidate", "enable", "follow"])
def test_failed_change_brings_the_configuration_back(host: Host, failing: str) -> None:
    host.services.failing = failing
    host.decide("port: 8500\ncontext: 64\nslots: 1\n")
    with pytest.raises(ApplyRestoredError) as caught:
        host.apply()
    assert caught.value.exit_code == 7
    assert caught.value.hint.startswith("the configuration from before serves")
    assert host.services.calls[-1] == "restore"
    assert host.served() == (8443, 64)
    assert not change_path(host.prefix).exists()


def test_where_the_way_back_fails_too_both_errors_are_shown(host: Host) -> None:
    host.services.failing = "follow restore"
    host.decide("port: 8500\n")
    with pytest.raises(ApplyBrokenError) as caught:
        host.apply()
    assert caught.value.exit_code == 8
    assert "restore" in caught.value.found
    assert "follow" in caught.value.found
    assert host.served() == (8443, 64)


def test_failure_after_users_reach_it_returns_to_nothing(host: Host) -> None:
    host.services.failing = "retire"
    host.decide("port: 8500\n")
    with pytest.raises(ApplianceError) as caught:
        host.apply()
    assert caught.value.exit_code == 1
    assert host.services.calls == ["enable", "follow", "retire"]
    assert host.served() == (8500, 64)


def test_release_that_is_still_trying_keeps_its_configuration_and_its_way_back(host: Host) -> None:
    change = HostChange(
        INSTALL, host.prefix.current.resolve().name, "0.9.0-0123456789ab", TRYING, "2026-01-01T00:00:00Z"
    )
    write_change(host.prefix, change)
    host.decide("port: 8500\n")
    with pytest.raises(BusyError) as caught:
        host.apply()
    assert caught.value.exit_code == 75
    assert "appliance rollback" in caught.value.hint
    assert host.served() == (8443, 64)
    assert change_path(host.prefix).exists()
    clear_change(host.prefix)


def test_wrong_file_changes_nothing(host: Host) -> None:
    host.decide("port: 8500\ncolour: red\n")
    with pytest.raises(UsageError):
        host.apply()
    assert (host.services.calls, host.served()) == ([], (8443, 64))


def test_taken_port_is_refused_before_anything_is_changed(host: Host) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        host.decide(f"port: {taken.getsockname()[1]}\n")
        with pytest.raises(HostUnfitError) as caught:
            host.apply()
    assert "ss -ltnp" in caught.value.hint
    assert (host.services.calls, host.served()) == ([], (8443, 64))


def test_more_memory_than_there_is_is_refused_before_anything_is_changed(host: Host) -> None:
    host.decide("slots: 2\n")
    host.card = replace(CARD, memory=replace(CARD.memory, ram_bytes=1 << 20, available_bytes=1 << 20))
    with pytest.raises(HostUnfitError) as caught:
        host.apply()
    assert (caught.value.exit_code, caught.value.code) == (6, "config.does-not-fit")
    assert (host.services.calls, host.served()) == ([], (8443, 64))
    host.card = CARD


def test_playbooks_that_differ_from_the_signed_ones_are_never_run(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    file = host.prefix.current / "playbooks" / "site.yml"
    signed = file.read_bytes()
    file.write_text("- hosts: all\n")
    host.decide("port: 8500\n")
    with monkeypatch.context() as patched, pytest.raises(DamagedError):
        patched.setattr(program, "render", lambda *_: pytest.fail("it was run"))
        host.apply()
    file.write_bytes(signed)


def killed_apply(host: Host, at: int) -> bool:
    """Apply in a child process that dies before its `at`-th change of a name on the disk; whether it got that far."""
    child = os.fork()
    if child == 0:
        left = at
        real = {name: getattr(os, name) for name in ("rename", "unlink", "rmdir", "mkdir")}

        def dying(name: str) -> Any:
            def act(*words: Any, **more: Any) -> Any:
                nonlocal left
                if left == 0:
                    os._exit(9)
                left -= 1
                return real[name](*words, **more)

            return act

        for name in real:
            setattr(os, name, dying(name))
        vars(program)["check_release"] = lambda *_, **__: None  # it changes nothing, and takes most of the time
        try:
            host.apply()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def recover_by_python(host: Host) -> None:
    finish_interrupted(host.prefix)


def recover_by_shell(host: Host) -> None:
    script = host.prefix.opt / "rollback"
    script.write_bytes(SCRIPT.read_bytes())
    done = subprocess.run(["/bin/sh", script, "--recover"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("recover", [recover_by_python, recover_by_shell])
@pytest.mark.ci
def test_kill_at_every_change_of_a_name_leaves_the_old_or_the_new_configuration(
    host: Host, recover: Callable[[Host], None]
) -> None:
    ports, at = [8500, 8600], 0
    before, seen = (8443, 64), set()
    while True:
        slots = at % 2 + 1
        host.decide(f"port: {ports[at % 2]}\nslots: {slots}\n")
        was_killed = killed_apply(host, at)
        recover(host)
        assert not change_path(host.prefix).exists()
        served = host.served()
        assert served in (before, (ports[at % 2], 64))
        seen.add("old" if served == before else "new")
        before, at = served, at + 1
        if not was_killed:
            break
    assert at > 10
    assert seen == {"old", "new"}


@pytest.mark.ci
def test_without_the_record_an_interrupted_change_is_seen(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    # The control of the test above: it can fail.
    monkeypatch.setattr(program, "write_change", lambda *_: None)
    release = host.prefix.current.resolve()
    kept = {path: path.read_bytes() for path in (*release.glob("config/*"), *release.glob("*.*")) if path.is_file()}
    found: set[int] = set()
    for at in range(20, 60, 2):
        if found:
            break
        host.decide(f"port: {8500 + at}\nslots: {at % 2 + 1}\n")
        killed_apply(host, at)
        finish_interrupted(host.prefix)
        try:
            host.served()
        except ApplianceError as error:
            found.add(error.exit_code)
            for path in release.rglob(".*.partial"):
                path.unlink()
            for path, data in kept.items():
                path.write_bytes(data)
    assert found <= {4, 9}
    assert found
