"""A host on which installs go through to their end, with simulated services and without Ansible."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from appliance.host.install import install_run, steps
from appliance.host.install.install import install
from appliance.host.install.planning.install_plan import InstallResult
from appliance.host.layout.prefix import Prefix
from appliance.host.playbook.ansible_run import PlaybookCounts
from appliance.host.preflight.inputs import Host, SourceMedia
from appliance.host.release.release import Release, current_target, open_current
from appliance.host.release.release_check import check_release
from appliance.host.site.config import SiteConfig
from bundles.bundle import Bundle
from tests.appliance.sim_card import CARD
from tests.appliance.sim_host import SimHost, new_host, write_configuration
from tests.toy import NOW

Step = Callable[[], None]


@dataclass
class SimServices:
    """Stands in for the services: it records each call, and runs what a test has staged for it.

    Args:
        host: whose link `current` is read.
        staged: what happens in the call of that name.
        has_compared: what `follow` returns.
        calls: each call, with the release that `current` named then.
    """

    host: Prefix
    staged: dict[str, Step] = field(default_factory=dict)
    has_compared: bool = False
    calls: list[tuple[str, str | None]] = field(default_factory=list)

    def _note(self, name: str) -> None:
        self.calls.append((name, current_target(self.host)))
        self.staged.get(name, lambda: None)()

    def make_room(self, _release: Release) -> None:
        self._note("make_room")

    def try_candidate(self, _release: Release, _on_progress: object) -> str:
        self._note("try_candidate")
        return "Paris"

    def end_candidate(self, _release: Release) -> None:
        self._note("end_candidate")

    def watch(self) -> None:
        self._note("watch")

    def enable(self, _release: Release) -> None:
        self._note("enable")

    def follow(self, _release: Release) -> bool:
        self._note("follow")
        return self.has_compared

    def retire(self, _release: Release) -> None:
        self._note("retire")

    def restore(self, _before: Path | None, _tried: Path) -> None:
        self._note("restore")

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


@dataclass
class Site:
    """A host on which installs go through to their end, without Ansible and engines."""

    sim: SimHost
    services: SimServices

    def install(self, source: Path | SourceMedia | None = None, **options: Any) -> InstallResult:
        self.services.calls.clear()
        return install(source or self.sim.source, self.sim.trust, self.machine, **options)

    @property
    def machine(self) -> Host:
        return Host(self.sim.prefix, CARD, lambda: datetime.now(timezone.utc), "", may_go_back=True)

    def decide(self, port: int, good_after: int = 600) -> None:
        trial = "" if good_after == 600 else f"trial: {{good_after: {good_after}}}\n"
        (self.sim.prefix.etc / "site.yaml").write_text(f"port: {port}\n{trial}")

    def served_port(self) -> int:
        """The port in the configuration of the release that serves, which must be complete."""
        release = open_current(self.sim.prefix, NOW)
        check_release(release)
        return int(json.loads((release.config / "gateway.json").read_bytes())["port"])

    def damage(self) -> None:
        (self.release / "licences" / "toy" / "LICENSE").write_text("not free\n")

    @property
    def release(self) -> Path:
        return self.sim.prefix.current.resolve()


def render(prefix: Prefix, release: Path, bundle: Bundle, site: SiteConfig, *_: Any) -> PlaybookCounts:
    """What the playbook writes into the release."""
    return PlaybookCounts(6, write_configuration(prefix, release, bundle, site))


def new_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A host with simulated services, on which nothing is installed yet."""
    sim = new_host(tmp_path)
    services = SimServices(sim.prefix)
    monkeypatch.setattr(steps, "render", render)
    monkeypatch.setattr(install_run, "NoServices", lambda _programs: services)
    return Site(sim, services)
