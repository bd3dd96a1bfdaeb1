"""How often anything on a host without a network card tried to leave it.

Owns the count and its meaning. There is no wire on which a packet could be counted, so the kernel is watched where an
attempt fails:

- looks for a route that found none, in every network namespace of the host, with the name of the program. The children
  of the installer and the engines live in namespaces of their own. Watched since `arm`, so not during a boot;
- the kernel's own counters of the host's namespace since it started: packets without a route (IPv4, IPv6);
- datagrams to a port where nobody listens: that is what a name lookup is on a host without a resolver.

Rules:

- The count has a control: attempts made on purpose must show, and are taken off.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bed.guest_isolation import TARGETS, prove_isolated
from tests.bed.host import Host
from tests.prove import inside
from tests.prove.transcript import UnprovenError, expect

INSIDE = "/root/prove/inside.py"


def put_inside(host: Host) -> None:
    """Copy `inside.py` onto the host, where it stays over a reboot."""
    host.put(Path(inside.__file__), INSIDE)


def call_inside(host: Host, *arguments: str, timeout_s: float = 300) -> Any:
    """Run one command of `inside` on the host and return its value."""
    return json.loads(host.run(["python3", "-I", INSIDE, *arguments], timeout_s=timeout_s).out)


@dataclass(frozen=True)
class Count:
    """What was counted.

    Args:
        refused: the program of each look for a route that found none.
        counters: the kernel's counters by name.
    """

    refused: tuple[str, ...]
    counters: dict[str, int]

    @property
    def total(self) -> int:
        """Looks and counters together: one attempt may be in both."""
        return len(self.refused) + sum(self.counters.values())

    def __str__(self) -> str:
        names = f" ({', '.join(sorted(set(self.refused)))})" if self.refused else ""
        counters = ", ".join(f"{name} {value}" for name, value in self.counters.items())
        return f"{len(self.refused)} looks for a route that found none{names}; {counters}"


class Attempts:
    """The count of one host, over its reboots.

    Args:
        host: with `put_inside` done.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._base: dict[str, int] = {}

    def arm(self) -> None:
        """Begin at 0 with a control: the host has no way out, and each attempt to find one is counted.

        Raises:
            NotIsolatedError: there is a way out.
            UnprovenError: an attempt was not counted.
        """
        call_inside(self._host, "arm")
        before = self._read()
        prove_isolated(self._host)
        call_inside(self._host, "canary")
        seen = self._read()
        # Those of the proof of isolation, and the one in a namespace of its own.
        expect("the count sees attempts made on purpose", len(TARGETS) + 1, len(seen.refused))
        for name in ("IpOutNoRoutes", "Ip6OutNoRoutes", "UdpNoPorts"):
            if seen.counters[name] <= before.counters[name]:
                raise UnprovenError(f"the counter {name} sees attempts made on purpose", "more than before", seen)
        self._base = seen.counters
        call_inside(self._host, "arm")

    def arm_again(self) -> Count:
        """After a reboot, which empties everything: watch again.

        Returns:
            The counters of the time before, in which namespaces were not watched.
        """
        self._base = {}
        call_inside(self._host, "arm")
        return self.count()

    def count(self) -> Count:
        """What was tried since `arm`, or since the reboot before `arm_again`."""
        found = self._read()
        counters = {name: value - self._base.get(name, 0) for name, value in found.counters.items()}
        return Count(found.refused, counters)

    def require_none(self) -> Count:
        """What was tried: nothing.

        Raises:
            UnprovenError: something was.
        """
        found = self.count()
        if found.total:
            raise UnprovenError("nothing tries to leave the host", "0 attempts", found)
        return found

    def _read(self) -> Count:
        found = call_inside(self._host, "count")
        return Count(tuple(found["refused"]), found["counters"])
