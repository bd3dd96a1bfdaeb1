"""How long a whole machine takes to the next version, back from one that fails, and back by a person's command.

Owns one test host with systemd (Debian 12, the demo's bundle). It needs root and the hosts of `make bed`.
"""

from __future__ import annotations

import itertools
import sys
import time

from tests.bed.abilities import no_hosts
from tests.bed.trees import DEBIAN_12
from tests.bench.figure import Figure
from tests.bench.material import RECIPE, Material
from tests.journeys.lifetime.life import Machine, build_versions, delta_stick, gateway_of, machine

MAX_UPGRADE_S, MAX_AWAY_S = 60.0, 5.0


def life(material: Material) -> list[Figure]:
    """An upgrade from a delta stick, an upgrade whose gate fails, and a rollback: until a question is answered."""
    if reason := no_hosts(DEBIAN_12):
        print(f"not measured: {reason}", file=sys.stderr)
        return []
    folder = material.folder / "life"
    folder.mkdir()
    versions = build_versions(RECIPE, material.demo[1], folder)
    with machine(versions, DEBIAN_12.name) as site:
        site.install(site.plug("old", versions.old.folder))
        site.plug("delta", delta_stick(site, folder))
        upgrade = _until_answer(site, "install", "/media/delta", "--yes")
        rollback = _until_answer(site, "rollback")
        away = _away_while_the_gate_fails(site)
    return [
        Figure("upgrade of a whole machine by a delta stick, demo", "60 s", upgrade, MAX_UPGRADE_S, 1.0),
        Figure("rollback, demo", "5 s", rollback, MAX_AWAY_S, 1.0),
        Figure("return by itself after a gate that fails, demo", "5 s without an answer", away, MAX_AWAY_S, 1.0),
    ]


def _until_answer(site: Machine, *words: str) -> float:
    started = time.monotonic()
    site.type(*words)
    site.await_serves()
    return time.monotonic() - started


def _away_while_the_gate_fails(site: Machine) -> float:
    """The longest time between two answers of the gateway while an upgrade fails after its switch."""
    with gateway_of(site, site.release()), site.polled() as seen:
        site.type("install", "/media/delta", "--yes", code=7)
        site.await_serves()
    times = [one.time for one in seen if one.status == 200]
    return max(after - before for before, after in itertools.pairwise(times))
